"""Resizing for FID on the Jittor twin."""
from fid_resizing import (  # noqa: F401  (tests)
    test_features_are_those_of_whole_pictures_bit_for_bit,
    test_resizing_one_by_one_is_the_networks_own_bit_for_bit,
)
