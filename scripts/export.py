"""Export a trained network as ONNX with dynamic batch and image size, checked against PyTorch by onnxruntime.

Same as `dgada export`; options: `python scripts/export.py --help`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the packages need not be installed

from ida.commands.export import main

if __name__ == "__main__":
    sys.exit(main())
