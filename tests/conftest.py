"""Every test carries the marker of its folder (neutral, mirror, torch, jittor, parity, cli).

In the folder of a twin, `backend` is that twin.
"""
from pathlib import Path

import pytest

from jittwin.backend import load_backend

TESTS = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(getattr(pytest.mark, item.path.relative_to(TESTS).parts[0]))


@pytest.fixture(scope="module")
def backend(request):
    twin = load_backend(request.path.parent.name)
    twin.setup()
    return twin
