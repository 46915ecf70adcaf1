"""What the APF-GAN task asks of a backend, seen from outside on the PyTorch twin."""
import pytest

from jittwin import config as settings
from jittwin.backend import load_backend
from jittwin.tasks.apf_gan import Config, Task

SMALL = ["preset=tiny", "crop_size=64", "load_size=86", "synthetic_images=4", "pretrain_epochs=12", "epochs=14"]


def rates(tmp_path, epoch, *overrides):
    backend = load_backend("torch")
    backend.setup()
    task = Task(settings.resolve(Config, overrides=[*SMALL, *overrides]), backend, None, tmp_path)
    task.enter_phase(task.phases[0])
    task.begin_epoch(epoch)
    return {name: optimizer.groups[0]["lr"] for name, optimizer in task.optimizers.items()}


@pytest.mark.parametrize("epoch, share", [(1, 1.0), (10, 1.0), (11, 1.0), (12, 0.75), (13, 0.5), (14, 0.25)])
def test_rates_fall_linearly_over_the_last_epochs(tmp_path, epoch, share):
    assert rates(tmp_path, epoch, "lr=8e-4", "decay_epochs=4") == pytest.approx({"G": 8e-4 * share, "D": 8e-4 * share})


def test_two_time_scales_halve_and_double(tmp_path):
    assert rates(tmp_path, 1, "lr=2e-4", "ttur=true") == pytest.approx({"G": 1e-4, "D": 4e-4})


def test_without_decay_rates_stay(tmp_path):
    assert rates(tmp_path, 14, "lr=2e-4", "ttur=true") == pytest.approx({"G": 1e-4, "D": 4e-4})
