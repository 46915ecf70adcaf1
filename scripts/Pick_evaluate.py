"""`Pick_evalaute.py` under the name that its author meant.

    python scripts/Pick_evaluate.py --weights PickScore_v1 --tokenizer clip-vit-large-patch14 [--true_score MOS_q]

It scores all pictures of T2I by default. --metric measures another score.
"""
import sys

from scorer_evaluation import main

if __name__ == "__main__":
    sys.exit(main("Pick_evaluate.py", "pickscore", "T2I"))
