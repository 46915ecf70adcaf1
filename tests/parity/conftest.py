"""What the parity tests share."""
import pytest

from parity.oracle import Twins

collect_ignore = ["example"]        # test_example runs it elsewhere

@pytest.fixture(scope="session")
def twins():
    """Both workers, started once."""
    with Twins() as pair:
        yield pair
