"""RewardModel on PyTorch."""
from reward_model import (  # noqa: F401  (tests)
    paths,
    test_models_that_cannot_be_loaded,
    test_pictures_and_prompts_that_are_none,
    test_ranks_are_those_of_the_scores,
    test_scores_of_files_pictures_and_arrays,
)
