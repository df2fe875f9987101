"""Write docs/config.md and docs/dataset-spec.md: every key of a config and of a data set spec, with its meaning.

python scripts/config_reference.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the packages need not be installed

from advent.config.reference import config_reference, spec_reference
from advent.utils.serialization import write_text

DOCS = Path(__file__).parents[1] / "docs"

if __name__ == "__main__":
    print(write_text(DOCS / "config.md", config_reference()))
    print(write_text(DOCS / "dataset-spec.md", spec_reference()))
