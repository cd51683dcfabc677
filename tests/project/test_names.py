"""No public class or type has two meanings within one package."""

from __future__ import annotations

import ast
from collections import defaultdict
from typing import Any


def _public_names(tree: ast.Module) -> list[str]:
    """Classes and type aliases that a module defines, not those that it imports."""
    names = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.append(node.target.id)
    return [name for name in names if name[0].isupper() and not name.isupper()]


def test_a_public_name_has_one_meaning(modules: list[Any]) -> None:
    homes = defaultdict(list)
    for module in modules:
        package = module.name.split(".")[0]
        for name in set(_public_names(ast.parse(module.path.read_text()))):
            homes[package, name].append(module.name)
    assert len(homes) > 100
    assert not {name: found for (_, name), found in homes.items() if len(found) > 1}
