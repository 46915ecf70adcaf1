"""Batch normalisation over two processes of Jittor."""
from joint_norm import test_two_processes_normalise_as_one  # noqa: F401  (tests)
