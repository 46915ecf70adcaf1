"""`python -m jittwin` is the console command `jittwin`."""
import sys

from jittwin.cli import main

if __name__ == "__main__":
    sys.exit(main())
