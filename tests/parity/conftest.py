"""What the parity tests share."""
import pytest

from parity.oracle import Twins


@pytest.fixture(scope="session")
def twins():
    """Both workers, started once."""
    with Twins() as pair:
        yield pair
