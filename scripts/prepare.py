"""Prepare data: convert SYNTHIA's original labels, or build a cache of decoded images (several times faster reading).

Same as `dgada prepare`; options: `python scripts/prepare.py --help`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the packages need not be installed

from ida.commands.prepare import main

if __name__ == "__main__":
    sys.exit(main())
