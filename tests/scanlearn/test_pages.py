from __future__ import annotations

import base64
from importlib.resources import files

import pytest

from scanlearn.pages import page_template, png_address

TEMPLATES = [
    ("scanlearn.archive", "summary.html.j2"),
    ("scantune.evaluation", "evaluation.html.j2"),
    ("scantune.reports", "report.html.j2"),
]


@pytest.mark.parametrize(("package", "name"), TEMPLATES)
def test_pages_share_one_frame(package: str, name: str) -> None:
    source = files(package).joinpath(name).read_text("utf-8")
    assert source.startswith('{% extends "frame.html.j2" %}')


def test_the_frame_allows_no_address_but_pictures_it_holds() -> None:
    page = page_template("scanlearn", "frame.html.j2").render()
    assert "default-src 'none'; img-src data:" in page
    assert "http:" not in page
    assert "https:" not in page


def test_what_is_filled_in_is_escaped() -> None:
    bars = page_template("scanlearn", "bars.html.j2").module.bars  # type: ignore[attr-defined]
    assert "<script>" not in bars([("<script>", 1, 1.0)], "Class", "scans")


def test_a_name_that_was_not_given_is_an_error() -> None:
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError):
        page_template("scanlearn.archive", "summary.html.j2").render()


def test_an_address_holds_the_picture() -> None:
    head, _, data = png_address(b"\x89PNG picture").partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data) == b"\x89PNG picture"
