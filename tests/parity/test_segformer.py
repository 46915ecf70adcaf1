"""Negative controls of SegFormer: slips of a port are found, and named where they are."""
import shutil

import pytest

from parity.cases import find
from parity.levels import forward
from parity.worker import ROOT

CASE = find("segformer")
SLIPS = {
    "order of the stages": ("projected[::-1]", "projected", {"decode_head"}),
    # The hub's config.json says so; transformers does not use it.
    "epsilon of the layer norms": ("self.layer_norm = LayerNorm(channels)\n\n    def execute(self, x):\n        x = ",
                                   "self.layer_norm = LayerNorm(channels, 1e-6)\n\n    def execute(self, x):\n        x = ",
                                   {f"segformer.encoder.patch_embeddings.{stage}.layer_norm" for stage in range(4)}),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_found_where_it_is(twins, tmp_path, slip):
    old, new, at_fault = SLIPS[slip]
    shutil.copytree(ROOT / "jt_models", tmp_path / "jt_models", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "jt_models/backbones/segformer.py"
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    twins.replace_jittor(tmp_path)
    try:
        row, = forward.check(CASE, "tiny", "eval", twins)
    finally:
        twins.replace_jittor(None)
    assert not row.passed and set(row.detail["culprits"]) == at_fault
