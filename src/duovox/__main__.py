"""`python -m duovox` is the command `duovox`."""

import sys

from duovox.cli import main

if __name__ == "__main__":
    sys.exit(main())
