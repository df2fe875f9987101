"""Predict images, folders or videos with a trained network.

Same as `dgada predict`; options: `python scripts/predict.py --help`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the packages need not be installed

from ida.commands.predict import main

if __name__ == "__main__":
    sys.exit(main())
