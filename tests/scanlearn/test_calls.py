from __future__ import annotations

import pytest
from pydantic import BaseModel

from scanlearn.calls import call, settings_model
from scanlearn.core import ScanlearnError


def sample(source: str, *, size: int = 64, names: tuple[str, ...] = ("a",)) -> tuple[object, ...]:
    return source, size, names


def test_keyword_arguments_become_checked_settings() -> None:
    assert set(settings_model(sample).model_fields) == {"size", "names"}
    assert issubclass(settings_model(sample), BaseModel)
    assert call(sample, "x", overrides=["size=32"]) == ("x", 32, ("a",))
    with pytest.raises(ScanlearnError, match="did you mean 'size'"):
        call(sample, "x", overrides=["sise=32"])
