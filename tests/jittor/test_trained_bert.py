"""A trained BERT on Jittor."""
from trained_bert import folder, test_a_trained_bert_has_its_published_features  # noqa: F401  (tests)
