"""The SigLIP tower: its case passes, and slips of a port are found, and named where they are."""
import pytest

from parity.cases import find
from parity.cases.siglip import FULL, tower_weights
from parity.levels import forward
from parity.runner import plan

CASE = find("siglip")
FILE, LAYERS = "backbones/siglip.py", [f"encoder.layers.{n}" for n in range(2)]
SLIPS = {
    "epsilon": ("self.layer_norm1 = LayerNorm(config.hidden_size, config.layer_norm_eps)",
                "self.layer_norm1 = LayerNorm(config.hidden_size)", {f"{layer}.layer_norm1" for layer in LAYERS}),
    "GELU with erf": ("return ops.gelu_tanh(x)", "return ops.gelu(x)",
                      {"head.mlp.activation_fn", *(f"{layer}.mlp.activation_fn" for layer in LAYERS)}),
    "queries and keys": ("self.q_proj(x), self.k_proj(x)", "self.k_proj(x), self.q_proj(x)",
                         {f"{layer}.self_attn" for layer in LAYERS}),
    "order of the pooling head's projections": ("(query, 0), (x, width)", "(query, width), (x, 0)", {"head.attention"}),
}


def test_the_case_passes(rows_of):
    rows = [row for step in plan(["siglip"], levels=["L1", "L2", "L3", "L4"]) for row in rows_of(step)]
    assert {(row.level, row.mode) for row in rows} == {
        ("L2", "eval"), *((level, mode) for level in ("L1", "L3", "L4") for mode in CASE.modes)}
    assert not [(row.level, row.mode, row.detail["reason"]) for row in rows if not row.passed]


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_found_where_it_is(broken, slip):
    old, new, at_fault = SLIPS[slip]
    row, = forward.check(CASE, "tiny", "eval pooled", broken(FILE, old, new))
    assert not row.passed and set(row.detail["culprits"]) == at_fault


def test_the_full_size_is_the_published_tower_and_shows_its_layers():
    """Without building it. `encoder.layers.N` is three levels deep."""
    config = CASE.config("full", "eval pooled")
    assert (config.hidden_size, config.num_hidden_layers, config.tokens, config.head) == (1152, 27, 1024, True)
    assert FULL == "so400m-patch16-512" and CASE.full_depth == 3
    assert CASE.inputs("full", "eval")["pixels"].shape == (1, 3, 512, 512)


def test_the_first_normalisation_sees_values_for_which_its_epsilon_counts():
    arrays = tower_weights({"embeddings.patch_embedding.weight": (32, 3, 8, 8)}, 0)
    assert arrays["embeddings.patch_embedding.weight"].std() == pytest.approx(0.1 / 192 ** 0.5, rel=0.05)
