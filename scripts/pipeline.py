"""Run all stages of a protocol in order, skip finished ones, resume interrupted ones, print one table.

Same as `dgada pipeline`; options: `python scripts/pipeline.py --help`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the packages need not be installed

from ida.commands.pipeline import main

if __name__ == "__main__":
    sys.exit(main())
