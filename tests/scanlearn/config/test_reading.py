from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scanlearn.config import dump_config, load_config, parse_value
from scanlearn.config.reading import read_yaml
from scanlearn.errors import ScanlearnError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("007", "007"),
        ("off", "off"),
        ("no", "no"),
        ("1e-3", 0.001),
        ("12", 12),
        ("0", 0),
        ("-1.5", -1.5),
        ("true", True),
        ("null", None),
        ("2026-01-01", "2026-01-01"),
        ("[1, 2]", [1, 2]),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    assert parse_value(text) == value


def test_each_key_knows_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: 1\nb:\n  c: 2\n")
    data, lines = read_yaml(path)
    assert data == {"a": 1, "b": {"c": 2}}
    assert lines == {("a",): 1, ("b",): 2, ("b", "c"): 3}


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"a: \xe4\n")
    with pytest.raises(ScanlearnError, match="is not UTF-8"):
        read_yaml(path)


def test_a_dumped_configuration_loads_back_equal(
    tmp_path: Path, run_model: Any, far_model: Any
) -> None:
    run = run_model(archive="007", method=far_model(queue=9), batch_size=5)
    path = tmp_path / "run.yaml"
    path.write_text(dump_config(run))
    assert load_config(run_model, path, kind="pretrain") == run
