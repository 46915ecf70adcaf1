"""SigLIP's vision tower (Zhai et al. 2023, arXiv 2303.15343): transformers' network with the same keys as the port.

Keys are those of the Hugging Face hub without the prefix "vision_model.".
"""
import transformers
from transformers.initialization import no_init_weights

from torch_models.nn.layers import checkpoint


class SiglipVisionModel(transformers.SiglipVisionModel):
    """Pictures (B, 3, S, S) in [-1, 1] to tokens (B, N, C), after the last normalisation.

    config: a jittwin.models.siglip.SiglipVisionConfig. gradient_checkpointing: compute each layer again for its
    gradient instead of keeping its inner results. The weights must be loaded.
    """

    is_gradient_checkpointing = False   # if it were true, peft would make the patch embedding need gradients

    def __init__(self, config, gradient_checkpointing: bool = False):
        with no_init_weights():
            super().__init__(transformers.SiglipVisionConfig(
                hidden_size=config.hidden_size, num_hidden_layers=config.num_hidden_layers,
                num_attention_heads=config.num_attention_heads, intermediate_size=config.intermediate_size,
                patch_size=config.patch_size, image_size=config.image_size, layer_norm_eps=config.layer_norm_eps,
                vision_use_head=config.head, attn_implementation="sdpa"))
        self.gradient_checkpointing = gradient_checkpointing

    def forward(self, pixels):
        x = self.embeddings(pixels)
        for layer in self.encoder.layers:
            x = checkpoint(layer, x, None) if self.gradient_checkpointing else layer(x, None)
        return self.post_layernorm(x)

    def pool(self, hidden):
        """Tokens (B, N, C) to SigLIP's embedding of the image (B, C); only if config.head is true."""
        return self.head(hidden)
