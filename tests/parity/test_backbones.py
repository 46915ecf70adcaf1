"""Negative control of the feature networks: a wrong epsilon is far out of the noise in every feature."""
import shutil

from parity.case import arrays_for
from parity.cases import find
from parity.worker import ROOT

CASE = find("inception_v3")


def test_a_wrong_epsilon_is_noticed(twins, tmp_path):
    shutil.copytree(ROOT / "jt_models", tmp_path / "jt_models", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "jt_models" / "backbones" / "inception_v3.py"
    assert path.read_text().count("eps=1e-3") == 1
    path.write_text(path.read_text().replace("eps=1e-3", "eps=1e-5"))
    arguments = {"case": CASE.reference(), "size": "tiny", "mode": "eval"}
    arrays = arrays_for(CASE, twins, "tiny", "eval")
    assert all(v.passed for v in twins.compare("parity.levels.data:augmented", arrays, **arguments).verdicts().values())
    twins.replace_jittor(tmp_path)
    try:
        found = twins.compare("parity.levels.data:augmented", arrays, **arguments).verdicts()
    finally:
        twins.replace_jittor(None)
    assert len(found) == 4 and not any(verdict.passed for verdict in found.values())
