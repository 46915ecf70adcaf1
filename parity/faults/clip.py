"""Faults of CLIP: what a text and a picture are told by, and how their features become cosines and logits."""
from parity.faults.fault import Fault

C, CASES = "backbones/clip.py", ("clip",)

FAULTS = (
    Fault("clip_text_sees_ahead", "", C,
          "self.encoder(self.embeddings(ids), ops.causal_mask(ids.shape[1]))", "self.encoder(self.embeddings(ids))",
          "tokens attend to those after them, and to the padding"),
    Fault("clip_padding_for_the_text", "", C,
          "self.first_end(ids).reshape(-1, 1, 1)", "(0 * self.first_end(ids) + ids.shape[1] - 1).reshape(-1, 1, 1)",
          "the last token stands for a text, which is padding in all but the longest"),
    Fault("clip_projection_with_bias", "", C,
          "Linear(config.text.hidden_size, config.projection_dim, bias=False)",
          "Linear(config.text.hidden_size, config.projection_dim)", "the last projection of texts has a bias"),
    Fault("clip_text_not_normalised", "", C,
          "        x = self.final_layer_norm(x)\n", "", "the last normalisation of texts is missing"),
    Fault("clip_one_activation", "", "backbones/siglip.py",
          '"gelu": GELU}', '"gelu": QuickGELU}', "every CLIP has the activation of OpenAI's", CASES),
    Fault("clip_picture_token_last", "", C,
          "ops.concat([first, x], 1)", "ops.concat([x, first], 1)",
          "the token of the whole picture follows the patches"),
    Fault("clip_first_norm_missing", "", C,
          "self.pre_layrnorm(self.embeddings(pixels))", "self.embeddings(pixels)",
          "the normalisation before the first block, which other vision transformers lack"),
    Fault("clip_picture_not_normalised", "", C,
          "self.post_layernorm(x[:, 0])", "x[:, 0]", "the last normalisation of pictures is missing"),
    Fault("clip_lengths_kept", "", C,
          "x / jt.maximum((x * x).sum(1).sqrt(), 1e-12).reshape(-1, 1)", "x", "products of features are no cosines"),
    Fault("clip_scale_without_exponent", "", C,
          "self.logit_scale.exp()", "self.logit_scale", "the logarithm of the scale is taken for the scale"),
)
