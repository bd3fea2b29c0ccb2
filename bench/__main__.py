"""`python -m bench` is `bench`."""

from __future__ import annotations

import sys

from bench.cli import main

sys.argv[0] = "bench"
sys.exit(main())
