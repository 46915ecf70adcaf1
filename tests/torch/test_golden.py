"""The official numbers, on the PyTorch twin."""
import pytest

pytest.register_assert_rewrite("golden")

from golden import GoldenFacts  # noqa: E402  (assertions are rewritten on import)


class TestTorch(GoldenFacts):
    pass
