"""SegFormer for semantic segmentation (Xie et al. 2021, arXiv 2105.15203): transformers' network with the hub's names.

Keys and module paths are those of the Hugging Face hub, which transformers 5 renames when it loads a file. All layer
norms have epsilon 1e-5, whatever the hub's config.json says. Dropout and stochastic depth, which only training from
scratch uses, are off.
"""
import re

import transformers
from torch import nn

from torch_models.nn.layers import BatchNorm2d, Module

# What transformers 5 calls a module or a parameter, and its name on the hub.
_HUB_NAMES = tuple((re.compile(rf"(?<![^.]){ours}(?![^.])"), hub) for ours, hub in (
    (r"stages\.(\d+)\.patch_embeddings", r"encoder.patch_embeddings.\1"),
    (r"stages\.(\d+)\.blocks", r"encoder.block.\1"),
    (r"stages\.(\d+)\.layer_norm", r"encoder.layer_norm.\1"),
    (r"attention\.q_proj", "attention.self.query"),
    (r"attention\.k_proj", "attention.self.key"),
    (r"attention\.v_proj", "attention.self.value"),
    (r"attention\.sequence_reduction\.sequence_reduction", "attention.self.sr"),
    (r"attention\.sequence_reduction\.layer_norm", "attention.self.layer_norm"),
    (r"attention\.o_proj", "attention.output.dense"),
    (r"mlp\.fc1", "mlp.dense1"),
    (r"mlp\.fc2", "mlp.dense2"),
    (r"mlp\.activation_fn", "mlp.intermediate_act_fn"),
    (r"layernorm_before", "layer_norm_1"),
    (r"layernorm_after", "layer_norm_2"),
    (r"decode_head\.linear_projections", "decode_head.linear_c"),
))
_NOTHING_DONE = (nn.Identity, nn.Dropout)


def _hub_name(path: str) -> str:
    """The name on the hub of a module or state entry of SegFormer."""
    path = path.removeprefix("network.")
    for ours, hub in _HUB_NAMES:
        path = ours.sub(hub, path)
    return path


class SegFormer(Module):
    """Pictures (B, 3, H, W), normalised by ImageNet's mean and deviation, to logits (B, num_labels, H/4, W/4).

    config: a jittwin.models.segformer.SegFormerConfig.
    """

    def __init__(self, config):
        super().__init__()
        stages = len(config.depths)
        self.network = transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(
            num_encoder_blocks=stages, depths=config.depths, hidden_sizes=config.hidden_sizes,
            num_attention_heads=config.num_attention_heads, sr_ratios=config.sr_ratios,
            patch_sizes=config.patch_sizes, strides=config.strides, mlp_ratios=(config.mlp_ratio,) * stages,
            decoder_hidden_size=config.decoder_hidden_size, num_labels=config.num_labels,
            classifier_dropout_prob=0.0, drop_path_rate=0.0))
        self.network.decode_head.batch_norm = BatchNorm2d(config.decoder_hidden_size)   # counts no batches
        self.register_state_dict_post_hook(_with_hub_names)
        self.register_load_state_dict_pre_hook(_with_own_names)

    def forward(self, x):
        return self.network(x).logits

    def named_modules(self, memo=None, prefix: str = "", remove_duplicate: bool = True):
        """The modules by their paths on the hub, without those that do nothing."""
        for path, part in super().named_modules(memo, prefix, remove_duplicate):
            if not isinstance(part, _NOTHING_DONE):
                yield _hub_name(path), part


def _with_hub_names(module, state, prefix, metadata):
    for name in list(state):
        state[_hub_name(name)] = state.pop(name)


def _with_own_names(module, state, *_):
    for name in module.network.state_dict():
        if (hub := _hub_name(name)) in state:
            state[f"network.{name}"] = state.pop(hub)
