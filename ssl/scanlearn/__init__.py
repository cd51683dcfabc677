"""scanlearn learns backbones from unlabeled medical scans, and measures how strongly to augment.

Every command is also a function of the same name:

Example:
    >>> from scanlearn import pretrain, load_config
    >>> from scanlearn.training.pretrain import PretrainConfig
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Names are imported at first use: torch and timm take seconds, `scanlearn --help` must not.
_HOMES = {
    "Archive": "scanlearn.archive.reader",
    "PretrainConfig": "scanlearn.training.pretrain",
    "Scale": "scanlearn.views.scale",
    "ScanlearnError": "scanlearn.errors",
    "ViewGenerator": "scanlearn.views.generator",
    "ViewTransform": "scanlearn.views.transform",
    "explain": "scanlearn.views.explain",
    "export": "scanlearn.training.pretrain",
    "load_backbone": "scanlearn.backbones.weights",
    "load_config": "scanlearn.config",
    "open_archive": "scanlearn.packing.sources",
    "pack": "scanlearn.packing.pack",
    "pretrain": "scanlearn.training.pretrain",
    "preview": "scanlearn.views.preview",
}

if TYPE_CHECKING:
    from scanlearn.archive.reader import Archive
    from scanlearn.backbones.weights import load_backbone
    from scanlearn.config import load_config
    from scanlearn.errors import ScanlearnError
    from scanlearn.packing.pack import pack
    from scanlearn.packing.sources import open_archive
    from scanlearn.training.pretrain import export, pretrain
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
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'scanlearn' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
