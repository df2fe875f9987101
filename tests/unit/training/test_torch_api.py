"""No private PyTorch API: names with an underscore may change in any version, and torch >= 2.4 is supported."""

from __future__ import annotations

import ast
from pathlib import Path

PROJECT = Path(__file__).parents[3]
# PyTorch's documentation uses this name; there is no public one.
DOCUMENTED = {"torch.utils._python_dispatch.TorchDispatchMode"}


def private_names(source: str) -> set[str]:
    """PyTorch names used in a module that have a part with a leading underscore."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute):
            names.add(ast.unparse(node))
    roots = ("torch", "nn", "dist", "functional", "self._scaler")
    ours = {name for name in names if any(name.startswith(f"{root}.") for root in roots)}
    parts = {name: name.removeprefix("self.").removesuffix(".__version__").split(".")[1:] for name in ours}
    return {name for name in ours if any(part.startswith("_") for part in parts[name])}


def test_private_names_are_found() -> None:
    source = "import torch\nfrom torch.utils._pytree import tree_leaves\ntorch._foreach_norm([])\ntorch.ones(1).sum()"
    source += "\nself._scaler._scale"
    assert private_names(source) == {"torch.utils._pytree.tree_leaves", "torch._foreach_norm", "self._scaler._scale"}


def test_no_private_name_of_pytorch_is_used() -> None:
    files = [p for folder in ("advent", "daf", "ida", "scripts") for p in (PROJECT / folder).rglob("*.py")]
    names_by_file = {str(p.relative_to(PROJECT)): private_names(p.read_text("utf-8")) - DOCUMENTED for p in files}
    assert {file: names for file, names in names_by_file.items() if names} == {}
    assert len(files) > 100
