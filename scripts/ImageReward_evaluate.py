"""`ImageReward_evalaute.py` under the name that its author meant.

    python scripts/ImageReward_evaluate.py --weights ImageReward.pt --tokenizer bert-base-uncased [--true_score MOS_q]

It scores all pictures of T2I by default. --metric measures another score.
"""
import sys

from scorer_evaluation import main

if __name__ == "__main__":
    sys.exit(main("ImageReward_evaluate.py", "imagereward", "T2I"))
