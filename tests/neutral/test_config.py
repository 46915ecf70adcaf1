"""Precedence, typed parsing, one-line errors, and the round trip through YAML."""
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import pytest
import yaml

from jittwin import config as settings
from jittwin.errors import UserError


@dataclass(frozen=True)
class Inner:
    PRESETS: ClassVar[dict] = {"published": {}, "mended": {"adam": "torch", "scale": 2.0}}
    adam: Literal["jittor", "torch"] = "jittor"
    scale: float = 1.0


@dataclass(frozen=True)
class Outer:
    PRESETS: ClassVar[dict] = {"tiny": {"width": 8, "inner": {"scale": 0.5}}, "repaired": {"inner": "mended"}}
    seed: int = 0
    width: int = 64
    lr: float = 2e-4
    flip: bool = True
    name: str = "x"
    max_steps: int | None = None
    augment: tuple[str, ...] = ()
    betas: tuple[float, float] = (0.0, 0.9)
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self):
        if self.width % 8:
            raise ValueError(f"width={self.width} must be a multiple of 8")


@pytest.fixture
def yaml_file(tmp_path):
    def write(text):
        path = tmp_path / "settings.yaml"
        path.write_text(text)
        return path
    return write


def test_defaults():
    assert settings.resolve(Outer) == Outer()


def test_precedence(yaml_file):
    path = yaml_file("preset: tiny\nlr: 0.5\ninner:\n  scale: 3\n")
    config = settings.resolve(Outer, yaml_path=path, overrides=["lr=1e-3", "seed=3", "seed=4"])
    assert config == Outer(seed=4, width=8, lr=1e-3, inner=Inner(scale=3.0))
    assert settings.resolve(Outer, yaml_path=path, overrides=["preset=repaired"]).inner == Inner("torch", 3.0)
    assert settings.resolve(Outer, preset="tiny").width == 8
    assert settings.resolve(Outer, preset="tiny", overrides=["preset=repaired"]).width == 64


def test_preset_of_a_nested_dataclass():
    config = settings.resolve(Outer, overrides=["inner.scale=9", "inner=mended"])
    assert config.inner == Inner("torch", 9.0)
    # naming a nested preset starts from the nested defaults, whatever a lower layer had set
    assert settings.resolve(Outer, preset="tiny", overrides=["inner=published"]).inner == Inner()


@pytest.mark.parametrize("text, key, value", [
    ("seed=-3", "seed", -3), ("lr=3", "lr", 3.0), ("lr=1e-5", "lr", 1e-5), ("flip=no", "flip", False),
    ("flip=True", "flip", True), ("name=a=b", "name", "a=b"), ("name=7", "name", "7"),
    ("max_steps=none", "max_steps", None), ("max_steps=9", "max_steps", 9),
    ("augment=color,crop", "augment", ("color", "crop")), ("augment=", "augment", ()),
    ("betas=[0.5, 0.99]", "betas", (0.5, 0.99))])
def test_values_from_the_command_line(text, key, value):
    found = getattr(settings.resolve(Outer, overrides=[text]), key)
    assert found == value and type(found) is type(value)


def test_values_from_yaml(yaml_file):
    path = yaml_file("lr: 1e-4\nbetas: [0, 0.5]\naugment: [color]\nmax_steps: null\n")
    config = settings.resolve(Outer, yaml_path=path)
    assert (config.lr, config.betas, config.augment, config.max_steps) == (1e-4, (0.0, 0.5), ("color",), None)


@pytest.mark.parametrize("text, message", [
    ("widht=8", "did you mean 'width'"), ("inner.adma=torch", "did you mean 'inner.adam'"),
    ("seed=abc", "--set: seed: expected a whole number but got 'abc'"), ("seed=1.5", "whole number"),
    ("flip=maybe", "true or false"), ("betas=1", "expected 2 values"),
    ("inner.adam=torhc", "did you mean 'torch'"),
    ("inner.adam=x", "choose from jittor, torch"), ("preset=tyni", "did you mean 'tiny'"),
    ("inner=mend", "did you mean 'mended'"), ("inner=1", "choose from published, mended"),
    ("seed", "expected key=value"), ("width=9", "multiple of 8")])
def test_mistakes_on_the_command_line_are_one_line(text, message):
    with pytest.raises(UserError) as error:
        settings.resolve(Outer, overrides=[text])
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text, message", [
    ("widht: 8", "did you mean 'width'"), ("seed: [1]", "seed: expected a whole number"),
    ("seed: true", "whole number"), ("name: 5", "quote it"), ("- a\n- b", "'key: value' lines"),
    ("a: [", "not valid YAML"), ("width: {a: 1}", "unknown key 'width.a'")])
def test_mistakes_in_the_file_name_it(yaml_file, text, message):
    path = yaml_file(text)
    with pytest.raises(UserError) as error:
        settings.resolve(Outer, yaml_path=path)
    assert message in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        settings.resolve(Outer, yaml_path=tmp_path / "none.yaml")


def test_dump_loads_back_identical(yaml_file):
    config = Outer(seed=5, lr=1e-7, name="7", augment=("a", "b"), max_steps=None, inner=Inner("torch", 0.1))
    assert settings.resolve(Outer, yaml_path=yaml_file(settings.dump(config))) == config
    assert yaml.safe_load(settings.dump(config))["inner"]["adam"] == "torch"
    assert settings.flat(config)["inner.scale"] == 0.1
