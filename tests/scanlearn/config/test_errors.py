from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scanlearn.config import load_config
from scanlearn.errors import ScanlearnError


@pytest.mark.parametrize(
    ("text", "overrides", "sentence"),
    [
        (
            "archive: a\nbacth_size: 3\n",
            (),
            "run.yaml line 2: 'bacth_size' is not a key (did you mean 'batch_size'?)",
        ),
        (
            "archive: a\nmethod:\n  name: near\n  temprature: 1\n",
            (),
            "run.yaml line 4: 'method.temprature' is not a key (did you mean 'temperature'?)",
        ),
        (
            "batch_size: 3\n",
            (),
            "run.yaml: 'archive' is missing; give it in the file or as archive=VALUE",
        ),
        (
            "archive: a\nbatch_size: 0\n",
            (),
            "run.yaml line 2: 'batch_size' is 0, but it should be greater than 0",
        ),
        (
            "archive: a\n",
            ("method.name=nera",),
            "the command line: 'method.name' is 'nera', but it should be one of 'near', 'far'",
        ),
        (
            "archive: a\nbatch_size: 4\n",
            ("batch_size=0",),
            "the command line: 'batch_size' is 0, but it should be greater than 0",
        ),
        ("archive: a\n", ("batch_size",), "'batch_size' is not an override; write key=value"),
        ("archive: a\n", ("archive.b=1",), "'archive' holds a value, not a block of keys"),
        ("archive: a\narchive: b\n", (), "line 2: is not valid YAML: the key 'archive' stands twi"),
        ("archive: [a\n", (), "is not valid YAML"),
        ("- a\n", (), "holds no 'key: value' lines"),
    ],
)
def test_errors_name_file_line_and_remedy(
    tmp_path: Path, run_model: Any, text: str, overrides: tuple[str, ...], sentence: str
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ScanlearnError) as caught:
        load_config(run_model, path, overrides, kind="pretrain")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_misspelt_key_is_named_before_the_key_it_leaves_missing(run_model: Any) -> None:
    with pytest.raises(ScanlearnError, match="did you mean 'archive'"):
        load_config(run_model, None, ["archvie=a"], kind="pretrain")
