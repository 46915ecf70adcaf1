"""The neutral tests must not need a framework: none may be there when they have run."""
import sys

import pytest


@pytest.fixture(autouse=True)
def no_framework():
    """A test that imports a framework fails itself, not one that comes after it."""
    before = {"torch", "jittor"} & set(sys.modules)
    yield
    assert not ({"torch", "jittor"} & set(sys.modules)) - before, "this test imported a framework"
