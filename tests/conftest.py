"""Fixtures shared by the tests of all packages."""

import pytest
import torch

from daf.methods import register
from helpers import tiny_data

register()

torch.set_num_threads(1)  # scripts/check.sh runs a process per core, and small layers gain nothing from more threads


@pytest.fixture
def data(tmp_path):
    """Root of a new pair of tiny domains; results are written to `data / exp`."""
    return tiny_data.make_data(tmp_path)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Root of tiny domains on which every stage has run once; read-only."""
    import entropy
    import train
    import train_intra
    import train_isl

    root = tiny_data.make_data(tmp_path_factory.mktemp("trained"))
    for script, cfg in (
        (train, "quick:daf"),
        (train_isl, "quick:isl"),
        (entropy, "quick:rank"),
        (train_intra, "quick:ida"),
    ):
        assert script.main(tiny_data.command_line(root, cfg)) == 0
    return root
