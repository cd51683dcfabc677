"""scanlearn pretrains backbones on unlabeled medical scans with a tunable augmentation scale.

Every command of the command line is also a function of the same name:

Example:
    >>> from scanlearn import pretrain
    >>> pretrain("simclr", ["archive=scans", "output=runs/simclr"])         # doctest: +SKIP

The folders, in the order in which a scan meets them:

- `config/`: YAML and ``key=value`` words to typed, strict settings
- `readers/`: a file to frames, one reader a format
- `archive/`: packed scans on disk
- `tables/`: which scans there are, and what a table says of them
- `packing/`: a folder or a table to an archive
- `audit/`: duplicates, and patients on both sides of a split
- `phantom/`: synthetic eyes with planted tasks
- `views/`: the augmentation scale, recipes, random draws and rendered views
- `methods/`: SimCLR, MoCo v2 and v3, DINO
- `backbones/`: timm networks: build, start weights, export, strict load
- `features/`: frozen features, measures without labels, AUROC
- `training/`: a pretraining run

Beside them, imported from everywhere:

- `core.py`: the types that the folders pass on, and the letters of tensor axes
- `errors.py`: the error for what a user gave wrongly
- `console.py`: lines, warnings and progress bars on a terminal
- `files.py`: atomic writes, disk errors in words, where the cache is
- `locks.py`: one process at a time writes to a folder, and folders that appear whole
- `compiling.py`: compiled functions, kept in the cache
- `provenance.py`: versions, commit, machine and seeds
- `cluster.py`: work as tasks of a cluster
- `threads.py`: how many threads compute beside other processes
- `pages.py`: self-contained HTML pages
- `svg.py`: figures on them
- `palette.py`: their colours
- `cli.py`: the commands
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Names are imported at first use: torch and timm take seconds, `scanlearn --help` must not.
_HOMES = {
    "Archive": "scanlearn.archive.reader",
    "PackSettings": "scanlearn.packing.settings",
    "PretrainConfig": "scanlearn.training.settings",
    "Scale": "scanlearn.views.scale",
    "ScanlearnError": "scanlearn.errors",
    "ViewGenerator": "scanlearn.views.generator",
    "ViewTransform": "scanlearn.views.transform",
    "add": "scanlearn.packing.add",
    "embed": "scanlearn.features.embed",
    "explain": "scanlearn.views.explain",
    "export": "scanlearn.training.export",
    "init": "scanlearn.training.init",
    "load_backbone": "scanlearn.backbones.weights",
    "load_config": "scanlearn.config",
    "load_preprocessing": "scanlearn.features.preprocessing",
    "open_archive": "scanlearn.packing.sources",
    "pack": "scanlearn.packing.pack",
    "panel": "scanlearn.features.panel",
    "pretrain": "scanlearn.training.pretrain",
    "preview": "scanlearn.views.preview",
    "summary": "scanlearn.archive.summary",
    "verify": "scanlearn.training.verify",
    "withdraw": "scanlearn.archive.withdraw",
}

if TYPE_CHECKING:
    from scanlearn.archive.reader import Archive
    from scanlearn.archive.summary import summary
    from scanlearn.archive.withdraw import withdraw
    from scanlearn.audit.audit import audit
    from scanlearn.backbones.weights import load_backbone
    from scanlearn.config import load_config
    from scanlearn.errors import ScanlearnError
    from scanlearn.features.embed import embed
    from scanlearn.features.panel import panel
    from scanlearn.features.preprocessing import load_preprocessing
    from scanlearn.packing.add import add
    from scanlearn.packing.pack import pack
    from scanlearn.packing.settings import PackSettings
    from scanlearn.packing.sources import open_archive
    from scanlearn.training.export import export
    from scanlearn.training.init import init
    from scanlearn.training.pretrain import pretrain
    from scanlearn.training.settings import PretrainConfig
    from scanlearn.training.verify import verify
    from scanlearn.views.explain import explain
    from scanlearn.views.generator import ViewGenerator
    from scanlearn.views.preview import preview
    from scanlearn.views.scale import Scale
    from scanlearn.views.transform import ViewTransform

__all__ = [
    "Archive",
    "PackSettings",
    "PretrainConfig",
    "Scale",
    "ScanlearnError",
    "ViewGenerator",
    "ViewTransform",
    "__version__",
    "add",
    "audit",
    "embed",
    "explain",
    "export",
    "init",
    "load_backbone",
    "load_config",
    "load_preprocessing",
    "open_archive",
    "pack",
    "panel",
    "pretrain",
    "preview",
    "summary",
    "verify",
    "withdraw",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'scanlearn' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps ``scanlearn.audit`` the command, although a folder is called so too.

    An import of anything in that folder would make it the folder: the same line would give a
    function or a module, by what was imported before.
    """

    @property
    def audit(self) -> Any:
        """The command; it has the files of its folder as attributes, for ``import a.b as c``."""
        folder = import_module("scanlearn.audit")
        command = import_module("scanlearn.audit.audit").audit
        files = {name: each for name, each in vars(folder).items() if isinstance(each, ModuleType)}
        vars(command).update(files)
        return command

    @audit.setter
    def audit(self, folder: ModuleType) -> None:
        pass


sys.modules[__name__].__class__ = _Package
