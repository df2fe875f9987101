"""Check your data: counts, pairs, sizes, label ids, depth, unreadable files, common mistakes.

Same as `dgada doctor`; options: `python scripts/doctor.py --help`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the packages need not be installed

from ida.commands.doctor import main

if __name__ == "__main__":
    sys.exit(main())
