"""Pages that a person opens in a browser: one file each, which loads nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from scanlearn.palette import DARK, LIGHT

if TYPE_CHECKING:
    from jinja2 import Environment, Template


def page_template(
    package: str, name: str, filters: Mapping[str, Callable[..., Any]] | None = None
) -> Template:
    """Returns a template that lies beside the modules of a package.

    It may extend ``frame.html.j2``, which holds the head and the style of a plain page, or include
    ``colours.html.j2``, the colours and the style of drawings alone. What is filled in is escaped;
    a name that nothing was given for is an error. A page of the frame that sets ``has_sorting``
    sorts its tables of class ``sorted``, by the only script that its policy allows.
    """
    environment = _environment(package)
    environment.filters.update(filters or {})
    return environment.get_template(name)


@cache
def _environment(package: str) -> Environment:
    # Imported here: `scanlearn --help` draws no page.
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup

    from scanlearn.svg import STYLE

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader("scanlearn", ".")]),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = files("scanlearn").joinpath("sort.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    environment.globals |= {"light": LIGHT, "dark": DARK, "svg_style": Markup(STYLE)}
    environment.globals |= {"sort_script": Markup(script), "sort_hash": digest}
    return environment


def png_address(picture: bytes) -> str:
    """Returns a PNG as an address that holds it, for the ``src`` of an image."""
    return "data:image/png;base64," + base64.b64encode(picture).decode("ascii")
