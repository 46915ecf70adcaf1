"""Each twin trains and generates in a process where the other framework cannot be imported."""
import pytest
from commands import BACKENDS, run, train

BLOCKED = {
    "jittor": ["torch", "torchvision", "transformers", "peft", "accelerate", "torch_models"],
    "torch": ["jittor", "jittor_utils", "jt_models"],
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_train_and_generate_without_the_other_framework(backend, labels, tmp_path):
    generate = ["generate", "--backend", backend, "--weights", tmp_path / "run", "--labels", labels,
                "--out", tmp_path / "pictures"]
    tier = ["train", "tier", "--backend", backend, "--out", tmp_path / "tier", "--set", "preset=tiny",
            "--set", "synthetic_images=20", "--set", "max_steps=1"]
    done = run(train(backend, tmp_path / "run", max_steps=2), generate, tier, blocked=BLOCKED[backend])
    assert [each.ok().imported for each in done] == [[], [], []]
    assert (tmp_path / "tier/checkpoints/1/model.safetensors").exists()
    assert (tmp_path / "run/checkpoints/2/G.safetensors").exists()
    assert len(list((tmp_path / "pictures").glob("*.jpg"))) == 5


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_blocker_blocks(backend, tmp_path):
    """Blocking the twin's own framework must fail, or the test above proves nothing."""
    done, = run(train(backend, tmp_path / "run"), blocked=[backend])
    assert f"{backend} is blocked" in done.one_line()
    assert not (tmp_path / "run").exists()
