"""Who may import what, folder by folder, and that no imports run in a circle."""

from __future__ import annotations

from typing import Any

# Lower layers first. "," parts of one layer may use one another, "|" parts may not.
SCANLEARN = [
    "errors",
    "files, console, palette, svg, pages",
    "provenance, config, readers",
    "core",
    "archive",
    "packing, phantom",
    "audit | views | backbones",
    "features | methods",
    "training",
    "cli",
]
SCANTUNE = [
    "labels",
    "scores, splits, statistics",
    "learners",
    "scoring, wording",
    "evaluation",
    "comparison",
    "cli",
]
DOORS = {
    "nibabel": ("scanlearn.readers",),
    "pydicom": ("scanlearn.readers",),
    "timm": ("scanlearn.backbones",),
    "lightly": ("scanlearn.methods", "scanlearn.training"),
    "pytorch_lightning": ("scanlearn.training",),
    "wandb": ("scanlearn.training",),
    # The labeled probe of a run follows it with plain learners; scantune measures with its own.
    "sklearn": ("scantune", "scanlearn.training", "scanlearn.features"),
    "rich": ("scanlearn.console", "scanlearn.cli", "scantune.cli"),
    "typer": ("scanlearn.cli", "scantune.cli"),
}
WITHOUT_TORCH = ("scanlearn.readers", "scantune.statistics", "scantune.scores", "scantune.splits")


def _levels(layers: list[str]) -> dict[str, tuple[int, str]]:
    """Returns part -> (layer, group); parts of one group may import one another."""
    levels = {}
    for level, layer in enumerate(layers):
        for group in layer.split("|"):
            for part in group.split(","):
                levels[part.strip()] = (level, group.strip())
    return levels


def _part(dotted: str) -> str:
    return dotted.split(".")[1] if "." in dotted else ""


def _is_within(dotted: str, package: str) -> bool:
    return dotted == package or dotted.startswith(package + ".")


def test_every_part_has_its_layer(modules: list[Any]) -> None:
    known = {"scanlearn": _levels(SCANLEARN), "scantune": _levels(SCANTUNE)}
    for module in modules:
        package = module.name.split(".")[0]
        assert _part(module.name) in {"", *known[package]}, f"{module.name} has no layer"


def test_imports_go_down_only(modules: list[Any]) -> None:
    for package, layers in (("scanlearn", SCANLEARN), ("scantune", SCANTUNE)):
        levels = _levels(layers)
        checked = 0
        for module in modules:
            part = _part(module.name)
            if not _is_within(module.name, package) or not part:
                continue
            for imported in module.imports:
                target = _part(imported)
                if not _is_within(imported, package) or target not in levels or target == part:
                    continue
                checked += 1
                (here, group), (there, other) = levels[part], levels[target]
                assert there < here or other == group, f"{module.name} imports {imported}"
        assert checked > 5


def test_scanlearn_never_imports_scantune(modules: list[Any]) -> None:
    for module in modules:
        if _is_within(module.name, "scanlearn"):
            assert not any(_is_within(name, "scantune") for name in module.imports), module.name


def test_only_the_comparison_reaches_into_training(modules: list[Any]) -> None:
    reaching = {
        module.name
        for module in modules
        if _is_within(module.name, "scantune")
        and any(_is_within(name, "scanlearn.training") for name in module.imports)
    }
    assert reaching
    assert all(_is_within(name, "scantune.comparison") for name in reaching), reaching


def test_libraries_enter_through_their_doors(modules: list[Any]) -> None:
    for library, doors in DOORS.items():
        users = {
            module.name
            for module in modules
            if any(_is_within(name, library) for name in module.imports)
        }
        outside = {name for name in users if not any(_is_within(name, door) for door in doors)}
        assert not outside, f"{library} is imported by {sorted(outside)}"


def test_readers_and_statistics_know_nothing_of_torch(modules: list[Any]) -> None:
    for part in WITHOUT_TORCH:
        inside = [module for module in modules if _is_within(module.name, part)]
        assert inside
        for module in inside:
            assert not any(_is_within(used, "torch") for used in module.imports), module.name


def test_no_imports_run_in_a_circle(modules: list[Any], house: Any) -> None:
    imports = house.module_imports(modules)
    finished: set[str] = set()

    def follow(name: str, path: list[str]) -> None:
        assert name not in path, "circle: " + " -> ".join([*path[path.index(name) :], name])
        if name not in finished:
            for target in sorted(imports[name]):
                follow(target, [*path, name])
            finished.add(name)

    for name in imports:
        follow(name, [])
