"""The choices of `Semantics`, on the PyTorch twin."""
import pytest

pytest.register_assert_rewrite("golden", "semantics")

from semantics import SemanticsFacts  # noqa: E402  (assertions are rewritten on import)


class TestTorch(SemanticsFacts):
    pass
