"""`python train.py …` is `jittwin train …`."""
import sys

from jittwin.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
