"""The error that every wrong input ends in."""

from __future__ import annotations


class ScanlearnError(ValueError):
    """What a user gave cannot be used.

    The message is one sentence that says where, what was given, what is allowed and what to
    do. The command line prints it without a traceback and exits with code 2.
    """
