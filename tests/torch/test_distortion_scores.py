"""The detector of distortion as predictor and metric on PyTorch."""
from distortion_scores import (  # noqa: F401  (a fixture and tests)
    folder,
    test_files_of_runs,
    test_maps_and_scores_are_those_of_the_network,
    test_mistakes,
    test_the_reference_pads_and_fast_does_not,
    test_untrained,
)
