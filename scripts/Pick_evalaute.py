"""The original `Pick_evalaute.py`: how well PickScore agrees with the votes in PKU-AIGIQA-4K.

    python scripts/Pick_evalaute.py --weights PickScore_v1 --tokenizer clip-vit-large-patch14 [--true_score MOS_q]

It scores all pictures of T2I by default. --metric measures another score.
"""
import sys

from scorer_evaluation import main

if __name__ == "__main__":
    sys.exit(main("Pick_evalaute.py", "pickscore", "T2I"))
