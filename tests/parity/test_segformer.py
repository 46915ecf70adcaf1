"""Negative controls of SegFormer: slips of a port are found, and named where they are."""
import pytest

from parity.cases import find
from parity.levels import forward

CASE = find("segformer")
SLIPS = {
    "order of the stages": ("projected[::-1]", "projected", {"decode_head"}),
    # The hub's config.json says so; transformers does not use it.
    "epsilon of the layer norms": (
        "self.layer_norm = LayerNorm(channels)\n\n    def execute(self, x):\n        x = ",
        "self.layer_norm = LayerNorm(channels, 1e-6)\n\n    def execute(self, x):\n        x = ",
        {f"segformer.encoder.patch_embeddings.{stage}.layer_norm" for stage in range(4)}),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_found_where_it_is(broken, slip):
    old, new, at_fault = SLIPS[slip]
    row, = forward.check(CASE, "tiny", "eval", broken("backbones/segformer.py", old, new))
    assert not row.passed and set(row.detail["culprits"]) == at_fault
