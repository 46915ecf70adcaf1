"""The metrics `clipscore` and `pickscore` on PyTorch."""
from clip_scores import (  # noqa: F401  (tests)
    test_a_prompt_is_encoded_once_and_padded_to_the_longest,
    test_hessels_score_is_never_negative,
    test_mistakes,
    test_pictures_are_prepared_once_for_clip_and_blip,
    test_prompts_are_cleaned_as_by_openai,
    test_scores_are_those_of_the_network,
)
