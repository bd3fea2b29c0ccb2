"""`python -m ser_batch` is `ser-batch`."""

from __future__ import annotations

import sys

from ser_batch.cli import main

if __name__ == "__main__":
    sys.exit(main())
