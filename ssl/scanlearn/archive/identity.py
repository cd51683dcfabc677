"""Keyed hashes by which an archive knows patients, series and files.

A hash without a key would hide nothing: the numbers of a hospital's patients can all be tried. One
key serves a user or a site, so that a patient has the same hash in an archive and in labels.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import stat
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped

from scanlearn.console import say
from scanlearn.errors import ScanlearnError

KEY_VARIABLE = "SCANLEARN_KEY"
_HEX_DIGITS = 24
_LEAST_CHARACTERS = 32
# Folders with such names say what lies in them, not where it is from.
_COMMON_NAMES = frozenset(
    {
        *("archive", "data", "dicom", "files", "images", "img", "labeled", "labels", "originals"),
        *("scans", "test", "train", "unlabeled", "val", "validation"),
    }
)
# What stands where a patient should, without letters' case and what is no letter or digit.
_NOBODY = frozenset(
    {
        *("", "nan", "none", "null", "nil", "na", "nat", "unknown", "unk", "undefined", "missing"),
        *("anonymous", "anonymized", "anonymised", "anonym", "anon", "anonymouspatient"),
        *("deidentified", "redacted", "removed", "noid", "notavailable", "notapplicable"),
        *("unspecified", "notspecified", "unbekannt", "anonymisiert", "inconnu", "anonyme"),
        *("desconocido", "anonimo", "sconosciuto", "desconhecido", "onbekend"),
    }
)
_SCIENTIFIC = re.compile(r"[+-]?\d+([.,]\d+)?[eE]\+\d+")
_THOUSANDS = re.compile(r"\d{1,3}([,.' ’]\d{3})+([.,]0+)?")
_POINT_ZERO = re.compile(r"(?<=\d)[.,]0+$")
_LEADING_ZEROS = re.compile(r"(?<![\d.,])0+(?=\d)")


def plain_number(number: str) -> str:
    """Returns a patient number without what spreadsheets and programs change in one.

    That is leading zeros, a trailing ``.0``, blanks around it, the case of letters, full-width
    digits, thousands separators, invisible characters, and quotes as in ``'00061``.
    """
    folded = unicodedata.normalize("NFKC", number).casefold()
    text = "".join(c for c in folded if unicodedata.category(c) != "Cf").strip(" \t\r\n='\"’‘`")
    text = _POINT_ZERO.sub("", text)
    if _THOUSANDS.fullmatch(text):
        text = re.sub(r"\D", "", text)
    return _LEADING_ZEROS.sub("", text)


def names_nobody(number: str) -> bool:
    """Returns whether a patient number says that there is none, as ``nan`` or ``ANONYMOUS``."""
    # Scans of many patients under such a word were silently those of one.
    folded = unicodedata.normalize("NFKD", number).casefold()
    return "".join(c for c in folded if c.isalnum()) in _NOBODY


def is_shortened(number: str) -> bool:
    """Returns whether a number was shortened by a spreadsheet, as ``6.10E+10``."""
    return _SCIENTIFIC.fullmatch(unicodedata.normalize("NFKC", number).strip()) is not None


@dataclass(frozen=True)
class Identities:
    """Makes the names under which patients, series and scans are known in an archive.

    Args:
        issuer: Who gave the patients their numbers, where nothing else says so: equal numbers of
            two issuers are two people.
    """

    key: bytes = field(repr=False)
    issuer: str = ""

    @property
    def fingerprint(self) -> str:
        """Tells two keys apart, and nothing of either."""
        return self._hashed("key")

    @property
    def issuer_hash(self) -> str:
        """Tells two issuers apart."""
        return self._hashed("issuer", self.issuer)

    def patient(self, number: str, issuer: str | None = None) -> str:
        """Returns a patient's name, 24 hexadecimal digits; an issuer of None is the archive's."""
        return self._hashed("patient", (issuer or self.issuer).strip(), number.strip())

    def spelling(self, number: str, issuer: str | None = None) -> str:
        """Returns what patients share whose numbers agree as `plain_number` has them."""
        return self._hashed("spelling", (issuer or self.issuer).strip(), plain_number(number))

    def series(self, uid: str) -> str:
        """Returns the name of a series, 24 hexadecimal digits."""
        return self._hashed("series", uid)

    def identifier(self, kind: str, value: str) -> str:
        """Returns the name of a study, accession or instance, 24 hexadecimal digits."""
        return self._hashed(kind, value.strip())

    def file(self, path: str) -> str:
        """Returns the name of a file at a path from its source's root, 24 hexadecimal digits."""
        return self._hashed("file", path)

    def _hashed(self, *parts: str) -> str:
        # Lengths keep ("ab", "c") and ("a", "bc") apart; file names need not be UTF-8.
        raw = [part.encode("utf-8", "surrogateescape") for part in parts]
        text = b"".join(len(part).to_bytes(4, "little") + part for part in raw)
        return hmac.digest(self.key, text, "sha256").hex()[:_HEX_DIGITS]


def read_identities(issuer: str) -> Identities:
    """Returns identities under this user's key, which is made at the first use.

    The key is the file that ``$SCANLEARN_KEY`` names, or ``scanlearn/key`` in the user's
    configuration folder, ``$XDG_CONFIG_HOME`` or ``~/.config``.

    Raises:
        ScanlearnError: The key can be read by others, is too short, or cannot be read or made.
    """
    variable = os.environ.get(KEY_VARIABLE)
    base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    path = Path(variable).expanduser() if variable else base / "scanlearn" / "key"
    try:
        if not variable and not path.exists():
            _make_key(path)
            say(f"made a key for hashing patients: {path} (keep it as safe as your archives)")
        text = path.read_text("utf-8").strip()
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise ScanlearnError(
            f"{path}: cannot be used as the key for hashing patients ({reason}); set "
            f"{KEY_VARIABLE} to a file with {_LEAST_CHARACTERS} random characters or more"
        ) from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ScanlearnError(
            f"{path}: the key for hashing patients is readable by others "
            f"({stat.filemode(mode)}); make it yours alone with chmod 600"
        )
    if len(text) < _LEAST_CHARACTERS:
        raise ScanlearnError(
            f"{path}: the key for hashing patients has {len(text)} characters, which could be "
            f"guessed; use {_LEAST_CHARACTERS} random ones or more"
        )
    return Identities(text.encode(), issuer)


def patient_codes(patients: Shaped[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Returns ``[n]`` codes of patients from 0, in the order in which they appear.

    What is dealt and drawn by code is then the same under every key.
    """
    _, first, inverse = np.unique(patients.astype(str), return_index=True, return_inverse=True)
    code = np.empty(len(first), np.int64)
    code[np.argsort(first)] = np.arange(len(first))
    codes: Int64[np.ndarray, " n"] = code[inverse]
    return codes


def source_name(source: Path) -> str:
    """Returns what a source is called: its folder, or the next above that is not called `images`.

    Labels and scans of one set often lie in neighbouring folders, and their patients are the same.
    """
    path = Path(os.path.abspath(source))  # noqa: PTH100 - a link's own name, and no ".." left
    folders = [path, *path.parents] if path.is_dir() else list(path.parents)
    named = (folder.name for folder in folders if folder.name.casefold() not in _COMMON_NAMES)
    return next(named, "")


def _make_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = path.with_name(f".key.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
        # Two processes may make one at once: a link, unlike a rename, keeps the first.
        os.link(aside, path)
    except FileExistsError:
        return
    finally:
        aside.unlink()
