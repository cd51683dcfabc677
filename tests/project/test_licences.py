"""No GPL or AGPL among the packages that an installation brings."""

from __future__ import annotations

import re
from importlib import metadata

# Permissive, or weak copyleft that asks nothing of a program that only uses it.
ACCEPTED = re.compile(
    r"apache|mit\b|bsd|isc|psf|python software foundation|python-2|cnri|mozilla|mpl|zlib|"
    r"unlicense|public domain|hpnd|historical permission|0bsd|boost|nvidia|libtiff|ofl|cc0|"
    r"lgpl|lesser general",
    re.IGNORECASE,
)
REFUSED = re.compile(r"\bA?GPL|affero|(?<!lesser )general public", re.IGNORECASE)
# Declared no licence in its metadata; read in the package's own licence file.
READ_BY_HAND = {
    "cuda-toolkit": "NVIDIA: an empty package that names the CUDA runtime's parts",
    "resvg-py": "MIT: the text of its licence file",
}


def _required(name: str, seen: dict[str, metadata.Distribution]) -> None:
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key in seen:
        return
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return  # a requirement of another platform or Python
    seen[key] = distribution
    for line in distribution.requires or []:
        if "extra ==" not in line:
            _required(re.split(r"[ ;<>=!~\[(]", line)[0], seen)


def _licence(distribution: metadata.Distribution) -> str:
    about = distribution.metadata
    classifiers = [c for c in about.get_all("Classifier") or [] if c.startswith("License")]
    declared = about.get("License-Expression") or ""
    first_line = (about.get("License") or "").strip().split("\n")[0]
    return " | ".join([declared, first_line, *classifiers]).strip(" |")


def test_dependencies_are_permissively_licensed() -> None:
    seen: dict[str, metadata.Distribution] = {}
    _required("scanlearn", seen)
    assert len(seen) > 40
    unclear = {}
    for key, distribution in seen.items():
        licence = READ_BY_HAND.get(key) or _licence(distribution)
        refused = REFUSED.search(licence.replace("LGPL", ""))
        if refused or not ACCEPTED.search(licence):
            unclear[key] = licence
    unclear.pop("scanlearn", None)
    assert not unclear
