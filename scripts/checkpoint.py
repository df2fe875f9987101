"""Identify a checkpoint file, or convert between the checkpoint formats of the ADVENT family.

Same as `dgada checkpoint`; options: `python scripts/checkpoint.py --help`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the packages need not be installed

from ida.commands.checkpoint import main

if __name__ == "__main__":
    sys.exit(main())
