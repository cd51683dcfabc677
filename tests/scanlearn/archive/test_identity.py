from __future__ import annotations

import hashlib
import hmac
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from scanlearn.archive.identity import (
    KEY_VARIABLE,
    Identities,
    is_shortened,
    names_nobody,
    patient_codes,
    plain_number,
    read_identities,
    source_name,
)
from scanlearn.errors import ScanlearnError

WHOSE = Identities(b"k" * 32, "north")


@pytest.fixture
def own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user's key is made who names none."""
    monkeypatch.delenv(KEY_VARIABLE)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "scanlearn" / "key"


def test_patient_is_an_hmac_of_issuer_and_number() -> None:
    parts = (b"patient", b"north", b"007")
    text = b"".join(len(part).to_bytes(4, "little") + part for part in parts)
    slow = hmac.new(b"k" * 32, text, hashlib.sha256).hexdigest()[:24]
    assert WHOSE.patient(" 007 ") == slow
    assert WHOSE.patient("007", "north") == slow


def test_patients_differ_by_number_issuer_key_and_kind() -> None:
    names = {
        WHOSE.patient("7"),
        WHOSE.patient("007"),
        WHOSE.patient("7", "south"),
        Identities(b"l" * 32, "north").patient("7"),
        WHOSE.series("7"),
        WHOSE.file("7"),
        WHOSE.patient("h7", "nort"),
    }
    assert len(names) == 7


def test_key_is_never_shown() -> None:
    secret = Identities(b"the secret of the site, kept so", "north")
    assert "secret" not in repr(secret)
    assert len(secret.fingerprint) == 24


def test_key_is_made_once_for_its_owner_only_and_said(
    own_key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = read_identities("north")
    assert own_key.stat().st_mode & 0o777 == 0o600
    assert read_identities("north") == first
    assert " ".join(capsys.readouterr().out.split()).count("made a key") == 1
    assert [path.name for path in own_key.parent.iterdir()] == ["key"]


def test_many_who_make_the_key_at_once_get_one(own_key: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: read_identities("").fingerprint, range(16)))
    assert len(found) == 1
    assert [path.name for path in own_key.parent.iterdir()] == ["key"]


def test_key_that_others_may_read_is_refused(own_key: Path) -> None:
    read_identities("")
    own_key.chmod(0o640)
    with pytest.raises(ScanlearnError, match="chmod 600"):
        read_identities("")


def test_short_or_missing_key_is_one_clear_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    monkeypatch.setenv(KEY_VARIABLE, str(key))
    with pytest.raises(ScanlearnError, match="No such file"):
        read_identities("")
    assert not key.exists()
    key.write_text("short\n")
    key.chmod(0o600)
    with pytest.raises(ScanlearnError, match="has 5 characters"):
        read_identities("")
    key.write_bytes(b"\xff" * 40)
    with pytest.raises(ScanlearnError, match="not a text file"):
        read_identities("")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_folder_where_no_key_can_be_made_is_one_clear_sentence(own_key: Path) -> None:
    own_key.parent.parent.chmod(0o500)
    with pytest.raises(ScanlearnError, match=KEY_VARIABLE):
        read_identities("")


def test_source_is_called_by_the_folder_that_tells_it_from_others(tmp_path: Path) -> None:
    images = tmp_path / "north" / "Images" / "train"
    images.mkdir(parents=True)
    table = tmp_path / "north" / "labels.csv"
    table.touch()
    assert source_name(images) == "north"
    assert source_name(table) == "north"
    assert source_name(tmp_path / "north") == "north"
    assert source_name(images / ".." / "..") == "north"


def test_codes_follow_first_appearance_and_not_names() -> None:
    assert patient_codes(np.array(["z", "a", "z", "m", "a"])).tolist() == [0, 1, 0, 2, 1]
    assert patient_codes(np.array([], dtype=np.str_)).tolist() == []


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        *(
            (text, "61")
            for text in ("61", "00061", "61.0", "61,00", " 61 ", "'00061", "'61", "６１")
        ),
        *((text, "61") for text in ('="00061"', "\ufeff61", "61\u200b", "0061.0")),
        *((text, "61234") for text in ("61,234", "61.234", "61 234", "61\u202f234", "61'234.0")),
        *((text, "p7-x") for text in ("P007-x", "p7-X", "P7-x")),
        ("0", "0"),
        ("000", "0"),
        ("100", "100"),
        ("1.05", "1.05"),
        ("test:IM-0001", "test:im-1"),
        ("1.2.840.0", "1.2.840"),
    ],
)
def test_what_programs_change_in_a_number_is_taken_away(written: str, plain: str) -> None:
    assert plain_number(written) == plain
    assert WHOSE.spelling(written) == WHOSE.spelling(plain)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        *(
            (text, True)
            for text in ("nan", "NaN", "None", "unknown", "ANONYMOUS", "-", "?", "", " ")
        ),
        *(
            (text, True)
            for text in ("n/a", "N.A.", "#N/A", "<NA>", "Anonymous^Patient", "--", "anónimo")
        ),
        *((text, False) for text in ("0", "-1", "Nancy", "unknown7", "A", "１")),
    ],
)
def test_some_words_name_nobody(number: str, expected: bool) -> None:
    assert names_nobody(number) is expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        *((text, True) for text in ("6.10E+10", "6,1E+10", "6e+10", " 1.23456E+17 ")),
        *((text, False) for text in ("6E10", "E+10", "12E5", "61", "6.1", "A6.1E+10")),
    ],
)
def test_a_number_that_a_spreadsheet_shortened_is_known(number: str, expected: bool) -> None:
    assert is_shortened(number) is expected
