"""The aesthetic model and its training: the cases pass, and slips of a port are found."""
import numpy as np
import pytest

from jittwin.tasks import load_task
from jittwin.tasks.aesthetic import rate_factor
from parity.cases import find
from parity.cases.aesthetic import CONFIG, AestheticTraining
from parity.levels import forward, trajectory
from parity.runner import Step, plan
from parity.training import Outcome, advance
from parity.workers.compare import Comparison

CASE = find("aesthetic")
LORA = "nn/lora.py"
ADAPTED = [f"vision_model.base_model.model.encoder.layers.{n}.{part}" for n in range(2) for part in (
    "self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")]


def test_the_case_passes(rows_of):
    rows = [row for step in plan(["aesthetic"], levels=["L1", "L2", "L3", "L4", "L5"]) for row in rows_of(step)]
    assert {(row.model, row.level, row.mode) for row in rows} == {
        *(("aesthetic", level, "eval") for level in ("L2", "L5")), ("aesthetic.merged", "L3", "eval"),
        *(("aesthetic", level, mode) for level in ("L1", "L3", "L4") for mode in CASE.modes)}
    assert not [(row.level, row.mode, row.detail["reason"]) for row in rows if not row.passed]


@pytest.mark.parametrize("file, old, new, at_fault", [
    (LORA, "(x))) * self.scaling", "(x)))", ADAPTED),
    ("nn/layers.py", 'key("site", path) & 0x7FFFFFFF', 'key("site", "") & 0x7FFFFFFF',
     [*(f"{path}.lora_dropout.default" for path in ADAPTED), "aesthetic_head.mlp.2", "aesthetic_head.mlp.5"])],
    ids=["scale forgotten", "one mask for all layers"])
def test_a_slip_is_found_where_it_is(broken, file, old, new, at_fault):
    row, = forward.check(CASE, "tiny", "train", broken(file, old, new))
    assert not row.passed and set(row.detail["culprits"]) == set(at_fault)


def test_adapters_that_stay_merged_are_noticed(broken):
    row, = forward.check(find("aesthetic.merged"), "tiny", "eval", broken(LORA, "part.add(-1)", "part.add(0)"))
    within = {path: error <= limit for path, error, _, limit in row.detail["curve"]}
    assert within["(model)"] and not within["(model)#1"], "the second pass is the one without adapters"


# ---- training --------------------------------------------------------------------------

def test_every_kind_of_step_is_looked_at():
    """Warm-up from rate 0 to its end, cosine and its end, a step of two batches and one of a single one."""
    case = AestheticTraining()
    config, batches = case.config("tiny"), 13
    rate, total, warm = rate_factor(batches, config)
    steps = -(-batches // config.accumulation)
    assert int(config.train_split * config.synthetic_images) // config.batch_size == batches
    assert (total, warm, steps, case.boundary("tiny")) == (18, 3, 7, 7)
    checked = case.checked("tiny")
    assert rate(checked[0]) == 0 and checked[-1] == config.epochs * steps - 1 and rate(checked[-1]) == 0
    assert {0, 1 / 3, 2 / 3, 1} <= {rate(step) for step in checked}
    assert {step % steps == steps - 1 for step in checked} == {True, False}
    assert config.lr != config.head_lr and CONFIG.lora.dropout != CONFIG.head_dropout
    assert load_task("aesthetic").Task.frozen, "what no checkpoint holds"


def test_the_same_steps_from_the_same_state(rows_of):
    row, _ = rows_of(Step("L6", find("aesthetic.training"), "tiny", "train"))
    assert row.passed, row.detail["reason"]
    assert [label for label, *_ in row.detail["curve"]] == [
        f"step {number}" for number in AestheticTraining().checked("tiny")]


def test_a_run_goes_on_in_the_other_framework(rows_of):
    """The first of its two checkpoints lies within the first epoch."""
    rows = rows_of(Step("L9", find("aesthetic.training"), "tiny", "train"))
    assert [row.mode for row in rows] == ["torch to jittor", "jittor to torch"]
    assert not [(row.mode, row.detail["reason"]) for row in rows if not row.passed]


def test_what_is_handed_over_and_compared(twins):
    """The optimizer's moments, the frozen weights, and the measures of a step that ends an epoch, of no other."""
    arguments, arrays, state, found = {"case": AestheticTraining().reference(), "size": "tiny"}, {}, None, {}
    for number in (2, 6):
        arrays, state = twins.torch.call(advance, arrays, state=state, steps=number, **arguments)
        found[number], _ = twins.torch.call(trajectory.step, arrays, state=state, steps=number + 1, **arguments)
        assert "optimizer/model/aesthetic_head.mlp.0.bias/exp_avg" in arrays
        assert "update frozen weights of model" in found[number]
    assert "measures" in found[6] and "measures" not in found[2]


def test_a_tower_that_changes_is_noticed(broken):
    """Evaluation merges the adapters and forgets to take them out again."""
    case = AestheticTraining()
    case.checked = lambda size: [6]
    old = "        y = self.base_layer(x)\n"
    row = trajectory.anchored(case, "tiny", broken(
        LORA, old, f"        if not self.is_training():\n            self.add(1)\n{old}"))
    failed = {name for name, *_, reason in row.detail["tensors"] if reason}
    assert {"update frozen weights of model, step 6", "measures, step 6"} <= failed
    assert "update model, step 6" not in failed, "it was not trained"


def test_a_frozen_weight_must_not_move_by_a_bit():
    zero, name = np.zeros(3), "update frozen weights of model"
    for moved in (0.0, 1e-9):
        arrays, begun = {"model/a": np.ones(2)}, {"model/a": np.zeros(2), "model/b": zero}
        after = Outcome(arrays, dict.fromkeys(("epoch", "step", "global_step"), 1), {"EMD": 0.1}, {"model": ["a"]},
                        begun=begun, frozen={"model/b": zero + moved})
        found = trajectory.changes({}, after)
        verdicts = trajectory.judged(Comparison({name: found[name]}, {name: zero}, {name: 0.0}, {name: 0.0}, {}))
        assert verdicts[name].passed == (not moved)
