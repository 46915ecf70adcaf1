"""The proof itself: every case of this project passes every level of the CI tier, step by step."""
import pytest

from parity.runner import plan


@pytest.mark.parametrize("step", plan(tier="ci"), ids=lambda step: f"{step.model} {step.level} {step.mode}".strip())
def test_the_twins_agree(twins, rows_of, step):
    rows = rows_of(step)
    twins.known.clear()          # or it would grow to several GB
    assert rows
    assert not [f"{row.mode}: {row.detail['reason']}" for row in rows if not row.passed]
