"""Keeps Lightning's remarks about its own use from our users."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Exact beginnings of third-party warnings, each with the reason why it says nothing to a user.
_FILTERED = (
    # A loader counted by step has no workers: it reads a memory map in one thread.
    "The 'train_dataloader' does not have many workers",
    # The device is the user's choice.
    "GPU available but not used",
    # Lightning's own use of a torch name that torch has renamed.
    "`isinstance(treespec, LeafSpec)` is deprecated",
)


_LOGGERS = ("pytorch_lightning", "lightning_fabric", "lightning")


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Lightning's tips and device lines away; its warnings only by their text."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            for text in _FILTERED:
                warnings.filterwarnings("ignore", message=re.escape(text))
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
