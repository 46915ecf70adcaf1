"""The original `BLIPScore_evalaute.py`: how well BLIPScore agrees with people's votes in PKU-AIGIQA-4K.

    python scripts/BLIPScore_evalaute.py --weights model_large.pth --tokenizer bert-base-uncased [--true_score MOS_q]

It scores all pictures of I2I by default. The original loads no weights; this command needs them.
"""
import sys

from scorer_evaluation import main

if __name__ == "__main__":
    sys.exit(main("BLIPScore_evalaute.py", "blipscore", "I2I"))
