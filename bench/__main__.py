"""``python -m fastlstm.bench``, the same as ``python -m fastlstm bench``."""

import sys

from fastlstm.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
