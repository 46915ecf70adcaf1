"""Negative control of the feature networks: a wrong epsilon is far out of the noise in every feature."""
from parity.case import arrays_for
from parity.cases import find
from parity.levels.data import augmented

CASE = find("inception_v3")


def test_a_wrong_epsilon_is_noticed(twins, broken):
    arguments = {"case": CASE.reference(), "size": "tiny", "mode": "eval"}
    arrays = arrays_for(CASE, twins, "tiny", "eval")
    assert all(v.passed for v in twins.compare(augmented, arrays, **arguments).verdicts().values())
    broken("backbones/inception_v3.py", "eps=1e-3", "eps=1e-5")
    found = twins.compare(augmented, arrays, **arguments).verdicts()
    assert len(found) == 4 and not any(verdict.passed for verdict in found.values())
