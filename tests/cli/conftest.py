"""What the command tests share: a small data folder, and one finished run per backend."""
import functools
from pathlib import Path

import numpy as np
import pytest
from commands import run, train

from jittwin import imaging
from jittwin.data.synthetic.landscapes import render

SKY, TREE = 1, 5


def write_pair(folder: Path, name: str, picture: np.ndarray, label: np.ndarray) -> None:
    for kind in ("imgs", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    imaging.save_image(folder / "imgs" / f"{name}.jpg", picture, 95)
    imaging.save_image(folder / "labels" / f"{name}.png", label)


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """Three scenes and a photograph of nothing but sky."""
    folder = tmp_path_factory.mktemp("data")
    for name, index in (("1", 0), ("2", 1), ("10", 2), ("sky", 7)):
        write_pair(folder, name, *render(index, 288, 96))
    return folder


@pytest.fixture(scope="session")
def labels(tmp_path_factory) -> Path:
    """Label maps to generate from: two scenes, sky twice, and trees alone."""
    folder = tmp_path_factory.mktemp("labels")
    for name, label in (("scene_2", render(3, 192, 64)[1]), ("scene_10", render(4, 192, 64)[1]),
                        ("sky_1", np.full((64, 192), SKY, np.uint8)), ("sky_2", np.full((64, 192), SKY, np.uint8)),
                        ("tree", np.full((64, 192), TREE, np.uint8))):
        imaging.save_image(folder / f"{name}.png", label)
    return folder


@pytest.fixture(scope="session")
def finished(data, tmp_path_factory):
    """finished(backend): a run of both phases on the data folder. Never write to it."""
    @functools.cache
    def train_once(backend: str) -> Path:
        folder = tmp_path_factory.mktemp(backend) / "run"
        run(train(backend, folder, "--data", data, save_every=1))[0].ok()
        return folder
    return train_once
