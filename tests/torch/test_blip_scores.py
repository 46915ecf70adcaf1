"""The metrics `blipscore` and `imagereward` on PyTorch."""
from blip_scores import (  # noqa: F401  (tests)
    test_a_prompt_is_encoded_once_and_padded_to_35_tokens,
    test_memory_that_nothing_uses_is_given_back,
    test_metrics_measured_one_after_the_other_give_the_same,
    test_mistakes,
    test_pictures_are_prepared_as_for_clip,
    test_scores_are_those_of_the_network,
    test_the_command_measures_one_after_the_other_where_memory_is_limited,
    test_two_metrics_of_one_network_share_it,
)
