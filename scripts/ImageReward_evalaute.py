"""The original `ImageReward_evalaute.py`: how well ImageReward agrees with the votes in PKU-AIGIQA-4K.

    python scripts/ImageReward_evalaute.py --weights ImageReward.pt --tokenizer bert-base-uncased [--true_score MOS_q]

It scores all pictures of T2I by default. --metric measures another score.
"""
import sys

from scorer_evaluation import main

if __name__ == "__main__":
    sys.exit(main("ImageReward_evalaute.py", "imagereward", "T2I"))
