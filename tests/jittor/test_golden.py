"""The official numbers, on the Jittor twin."""
import pytest

pytest.register_assert_rewrite("golden")

from golden import GoldenFacts  # noqa: E402  (assertions are rewritten on import)


class TestJittor(GoldenFacts):
    pass
