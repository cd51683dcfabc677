"""Who may import what, folder by folder, and that no imports run in a circle."""

from __future__ import annotations

from typing import Any

# Lower layers first; parts of one layer do not import one another.
SCANLEARN = [
    "errors",
    "files | console | palette",
    "locks | compiling",
    "svg",
    "pages",
    "provenance | threads | config | readers",
    "core | cluster",
    "archive",
    "phantom | tables",
    "packing",
    "audit | views | backbones",
    "features | methods",
    "training",
    "cli",
]
SCANTUNE = [
    "labels",
    "scores | splits",
    "statistics | learners",
    "scoring | wording",
    "evaluation",
    "study",
    "reports",
    "comparison",
    "cli",
]
DOORS = {
    "filelock": ("scanlearn.locks",),
    "jinja2": ("scanlearn.pages",),
    "lightly": ("scanlearn.methods", "scanlearn.training"),
    "matplotlib": ("scanlearn.views.preview",),
    "numba": ("scanlearn.compiling",),
    "nibabel": ("scanlearn.readers",),
    "pydicom": ("scanlearn.readers",),
    "pytorch_lightning": ("scanlearn.training",),
    "resvg_py": ("scanlearn.svg",),
    "rich": ("scanlearn.console",),
    "submitit": ("scanlearn.cluster",),
    "safetensors": ("scanlearn.backbones", "scantune.evaluation"),
    # Features: the map of embeddings. The labeled probe of a run follows it with plain learners;
    # scantune measures with its own.
    "sklearn": (
        "scanlearn.features",
        "scanlearn.training",
        "scantune.learners",
        "scantune.statistics",
    ),
    "timm": ("scanlearn.backbones",),
    "typer": ("scanlearn.cli", "scantune.cli"),
    "wandb": ("scanlearn.training",),
    "yaml": ("scanlearn.config",),
}
WITHOUT_TORCH = ("scanlearn.readers", "scantune.statistics", "scantune.scores", "scantune.splits")


def _levels(layers: list[str]) -> dict[str, int]:
    return {part.strip(): level for level, layer in enumerate(layers) for part in layer.split("|")}


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
                assert levels[target] < levels[part], f"{module.name} imports {imported}"
        assert checked > 5


def test_scanlearn_never_imports_scantune(modules: list[Any]) -> None:
    for module in modules:
        if _is_within(module.name, "scanlearn"):
            assert not any(_is_within(name, "scantune") for name in module.imports), module.name


def test_only_comparisons_reach_into_training(modules: list[Any]) -> None:
    reaching = {
        module.name
        for module in modules
        if _is_within(module.name, "scantune")
        and any(_is_within(name, "scanlearn.training") for name in module.imports)
    }
    assert reaching
    doors = ("scantune.study", "scantune.comparison")
    assert all(any(_is_within(name, door) for door in doors) for name in reaching), reaching


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
