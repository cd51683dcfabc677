"""The picture of the folders in docs/contributing.md is drawn from today's imports."""

from __future__ import annotations

from typing import Any

import pytest


def test_the_picture_is_current(house: Any, modules: list[Any]) -> None:
    assert house.PICTURE.read_text() == house.draw(modules), "run: python docs/house.py"


def test_an_arrow_that_follows_from_others_is_left_out(house: Any) -> None:
    imports = {"roof": {"wall", "floor"}, "wall": {"floor"}, "floor": set()}
    assert house.arrows(imports) == [("roof", "wall"), ("wall", "floor")]


def test_a_folder_without_a_place_is_named(house: Any, modules: list[Any], root: Any) -> None:
    shed = house.Module("scanlearn.shed.tools", root / "tools.py", frozenset())
    with pytest.raises(ValueError, match=r"scanlearn\.shed"):
        house.draw([*modules, shed])


def test_an_import_that_does_not_go_down_is_named(
    house: Any, modules: list[Any], root: Any
) -> None:
    sideways = frozenset({"scanlearn.features.panel"})
    module = house.Module("scanlearn.methods.new", root / "new.py", sideways)
    with pytest.raises(ValueError, match=r"methods imports scanlearn\.features"):
        house.draw([*modules, module])
