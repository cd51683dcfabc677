"""Calling a function with ``key=value`` words, as every command line does."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def settings_model(function: Callable[..., Any]) -> Any:
    """Returns a strict pydantic model of a function's keyword-only arguments."""
    from pydantic import ConfigDict, create_model

    hints = inspect.get_annotations(function, eval_str=True)
    fields: dict[str, Any] = {
        name: (
            hints[name],
            ... if argument.default is inspect.Parameter.empty else argument.default,
        )
        for name, argument in inspect.signature(function).parameters.items()
        if argument.kind is inspect.Parameter.KEYWORD_ONLY
    }
    config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    return create_model(f"{function.__name__}_settings", __config__=config, **fields)


def call(function: Callable[..., Any], *positional: Any, overrides: Any) -> Any:
    """Calls a function with ``key=value`` words as its checked keyword-only arguments."""
    from scanlearn.config import load_config

    settings = load_config(settings_model(function), None, overrides, kind=function.__name__)
    return function(
        *positional, **{key: getattr(settings, key) for key in settings.model_fields_set}
    )
