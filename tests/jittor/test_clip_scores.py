"""The metrics `clipscore` and `pickscore` on Jittor."""
from clip_scores import (  # noqa: F401  (tests)
    test_a_prompt_is_encoded_once_and_padded_to_the_longest,
    test_prompts_are_cleaned_as_by_openai,
    test_scores_are_those_of_the_network,
)
