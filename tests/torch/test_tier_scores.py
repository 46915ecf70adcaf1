"""The metric `tier` on PyTorch."""
from tier_scores import (  # noqa: F401  (a fixture and tests)
    folder,
    test_a_baseline_reads_no_prompt,
    test_a_prompt_is_encoded_once_however_often_it_comes,
    test_mistakes,
    test_votes_are_those_of_the_network,
)
