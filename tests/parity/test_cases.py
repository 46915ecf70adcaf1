"""Every model of the catalogue has a case, and the cases cover what they say. No worker is started."""
import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from jittwin.errors import UserError
from jittwin.models.apf_gan import stage
from jittwin.models.catalog import MODELS
from parity import cases
from parity.case import load
from parity.cases import CASES, find
from parity.cases.apf_gan import GROWN, epoch_of
from parity.runner import CHECKS, check_offered, plan


def without_case(models) -> list[str]:
    return [record.name for record in models if record.name not in CASES]


def test_every_model_has_a_case():
    assert not without_case(MODELS)


def test_a_model_without_a_case_is_found():
    assert "new" in without_case([*MODELS, replace(MODELS[0], name="new")])


@pytest.mark.parametrize("record", MODELS, ids=lambda record: record.name)
def test_a_model_is_checked_at_every_level_it_can_fail_at(record):
    case = CASES[record.name]
    assert {"L1", "L2", "L3", "L4"} <= set(case.levels)
    assert "L5" in case.levels or record.name not in ("apf_gan.encoder", "apf_gan.generator", "apf_gan.discriminator")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_case_crosses_to_the_workers_by_its_name(case):
    assert type(load(json.loads(json.dumps(case.reference())))) is type(case)
    assert set(case.levels) <= set(CHECKS) and case.sizes in (("tiny",), ("tiny", "full"), ("full",))
    modes = [*case.modes, *case.more_modes]
    assert len(set(modes)) == len(modes) and all(mode.split()[0] in ("eval", "train") for mode in modes)


def test_every_file_of_cases_is_found_and_no_case_hides_another():
    files = [path.stem for path in Path(cases.__file__).parent.glob("[!_]*.py")]
    declared = [case.name for file in files for case in importlib.import_module(f"parity.cases.{file}").CASES]
    assert sorted(declared) == sorted(CASES)


def test_a_case_of_the_published_size_alone_runs_in_the_full_tier():
    assert {(step.level, step.size) for step in plan(["distortion_large"], "full")} == {
        ("L0", ""), ("L1", "full"), ("L3", "full")}
    check_offered(["distortion_large"], ["L3"], "full")
    check_offered(["distortion_large", "vit"], None)
    with pytest.raises(UserError, match="distortion_large: has its published size alone: use `check` with --tier full"):
        check_offered(["distortion_large"], None)


def test_an_unknown_case_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'apf_gan.generator'"):
        find("apf_gan.generater")


def test_the_training_step_is_checked_in_every_stage():
    """Of each resolution: before fading, its first epoch, and later; then full size, and the second phase."""
    case = CASES["apf_gan.objective"]
    epochs = {epoch_of(mode) for mode in (*case.modes, *case.more_modes)}
    stages = [stage(epoch, GROWN, 4) for epoch in epochs if epoch < GROWN]
    assert {at.level for at in stages if at.alpha == 0} == {0, 1, 2}
    assert {at.level for at in stages if at.first_fade} == {0, 1, 2}
    assert any(at.alpha > 0 and not at.first_fade for at in stages)
    assert {GROWN, GROWN + 1} <= epochs
    assert any("repaired" in mode for mode in case.more_modes)


def test_the_full_tier_adds_modes_and_sizes():
    def planned(tier):
        return {(step.level, step.size, step.mode) for step in plan(["apf_gan.objective"], tier)}

    case = CASES["apf_gan.objective"]
    assert {mode for _, _, mode in planned("ci")} == {*case.modes, ""}
    added = planned("full") - planned("ci")
    assert {mode for _, size, mode in added if size == "full"} == {*case.modes}
    assert {mode for _, size, mode in added if size == "tiny"} == {*case.more_modes}
    assert {level for level, size, _ in added if size == "full"} == {"L1", "L3"}
