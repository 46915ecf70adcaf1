"""Moving averages on PyTorch."""
from averages import test_averages_on_the_device, test_restored_averages_go_on_to_the_last_bit  # noqa: F401  (tests)
