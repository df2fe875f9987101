"""Environment variables of the demo's server. They count when Gradio is imported or a page is made."""

from __future__ import annotations

import os
from pathlib import Path

HOST = "127.0.0.1"


def keep_local(folder: Path) -> None:
    """No telemetry, no downloads, no proxy for the loopback address, and no settings of other Gradio pages.

    `folder`: for uploaded files and results.
    """
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    os.environ.update(
        GRADIO_ANALYTICS_ENABLED="False",
        GRADIO_TEMP_DIR=str(folder),
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
    )
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), HOST]))
