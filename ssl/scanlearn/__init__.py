"""scanlearn pretrains backbones on unlabeled medical scans with a tunable augmentation scale.

Every command of the command line is also a function of the same name:

Example:
    >>> from scanlearn import load_config, pretrain
    >>> from scanlearn.training.settings import PretrainConfig

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
- `provenance.py`: versions, commit, machine and seeds
- `threads.py`: how many threads compute beside other processes
- `pages.py`: self-contained HTML pages
- `svg.py`: figures on them
- `palette.py`: their colours
- `cli.py`: the commands
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Names are imported at first use: torch and timm take seconds, `scanlearn --help` must not.
_HOMES = {
    "Archive": "scanlearn.archive.reader",
    "PretrainConfig": "scanlearn.training.settings",
    "Scale": "scanlearn.views.scale",
    "ScanlearnError": "scanlearn.errors",
    "ViewGenerator": "scanlearn.views.generator",
    "ViewTransform": "scanlearn.views.transform",
    "explain": "scanlearn.views.explain",
    "export": "scanlearn.training.export",
    "load_backbone": "scanlearn.backbones.weights",
    "load_config": "scanlearn.config",
    "open_archive": "scanlearn.packing.sources",
    "pack": "scanlearn.packing.pack",
    "pretrain": "scanlearn.training.pretrain",
    "preview": "scanlearn.views.preview",
    "verify": "scanlearn.archive.verify",
}

if TYPE_CHECKING:
    from scanlearn.archive.reader import Archive
    from scanlearn.archive.verify import verify
    from scanlearn.backbones.weights import load_backbone
    from scanlearn.config import load_config
    from scanlearn.errors import ScanlearnError
    from scanlearn.packing.pack import pack
    from scanlearn.packing.sources import open_archive
    from scanlearn.training.export import export
    from scanlearn.training.pretrain import pretrain
    from scanlearn.training.settings import PretrainConfig
    from scanlearn.views.explain import explain
    from scanlearn.views.generator import ViewGenerator
    from scanlearn.views.preview import preview
    from scanlearn.views.scale import Scale
    from scanlearn.views.transform import ViewTransform

__all__ = [
    "Archive",
    "PretrainConfig",
    "Scale",
    "ScanlearnError",
    "ViewGenerator",
    "ViewTransform",
    "__version__",
    "explain",
    "export",
    "load_backbone",
    "load_config",
    "open_archive",
    "pack",
    "pretrain",
    "preview",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'scanlearn' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
