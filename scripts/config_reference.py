"""Write docs/config.md: every config key with its type, default, bounds and meaning.

python scripts/config_reference.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the packages need not be installed

from advent.config.reference import config_reference
from advent.utils.serialization import write_text

FILE = Path(__file__).parents[1] / "docs" / "config.md"

if __name__ == "__main__":
    write_text(FILE, config_reference())
    print(FILE)
