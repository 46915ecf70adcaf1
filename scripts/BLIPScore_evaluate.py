"""`BLIPScore_evalaute.py` under the name that its author meant.

    python scripts/BLIPScore_evaluate.py --weights model_large.pth --tokenizer bert-base-uncased [--true_score MOS_q]

It scores all pictures of I2I by default. The original loads no weights; this command needs them.
"""
import sys

from scorer_evaluation import main

if __name__ == "__main__":
    sys.exit(main("BLIPScore_evaluate.py", "blipscore", "I2I"))
