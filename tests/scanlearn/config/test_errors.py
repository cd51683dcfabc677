from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scanlearn.config import load_config
from scanlearn.errors import ScanlearnError
from scanlearn.packing.settings import PackSettings
from scanlearn.training.settings import PretrainConfig


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


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("recipe=dino", "'recipe' is not a key; it stands under views.recipe"),
        ("name=dino", "'name' is not a key; it stands under backbone.name and method.name"),
        ("views.name=x", "'views.name' is not a key; it stands under backbone.name and"),
        ("views.sizes=3", "'views.sizes' is not a key (did you mean 'size'?)"),
        ("seeds=1", "'seeds' is not a key (did you mean 'seed'?)"),
    ],
)
def test_a_key_of_a_block_is_told_with_its_place(given: str, said: str) -> None:
    with pytest.raises(ScanlearnError) as error:
        load_config(PretrainConfig, None, ["archive=a", "output=b", given], kind="pretrain")
    assert said in str(error.value)


def test_the_misspelt_key_is_named_before_the_key_it_leaves_missing(run_model: Any) -> None:
    with pytest.raises(ScanlearnError, match="did you mean 'archive'"):
        load_config(run_model, None, ["archvie=a"], kind="pretrain")


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n"
    for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b"a: " + b"[" * 200 + b"]" * 200, "nested too deeply"),
        (b"archive: a\x00b\n", "which no text has"),
        (b"? [archive, output]\n: 1\n", "a list or a block of keys stands where a key should"),
        (b"? {archive: output}\n: 1\n", "a list or a block of keys stands where a key should"),
        (b"archive: &a [*a]\n", "hold themselves"),
        (b"archive: &a {b: *a}\n", "hold themselves"),
        (LAUGHS.encode(), "repeated too often"),
        (b"archive: a\narchive: b\n", "stands twice"),
        (b"archive:\n\tb: 1\n", "line 2: is not valid YAML"),
        (b"archive: \xff\n", "is not UTF-8 text"),
        ("archive: ä\n".encode("utf-16"), "is not UTF-8 text"),
        (b"seed: " + b"9" * 5000, "is not valid YAML"),
        (b"archive: !!timestamp 2020-99-99\n", "is not valid YAML"),
        (b"archive: !!python/object:os.system {}\n", "is not valid YAML"),
        (b"archive: !!int ''\n", "is not valid YAML"),
        (b"archive: !!bool maybe\n", "is not valid YAML"),
        (b"--- 1\n--- 2\n", "is not valid YAML"),
        (b"7: a\n", "'7' is not a key"),
        (b"null: a\n", "'null' is not a key"),
        (b"a: 1\n" * 250_000, "longer than 1,000,000 characters"),
        (b"[1, 2]\n", "holds no 'key: value' lines"),
    ],
)
def test_what_is_no_configuration_is_one_sentence(
    tmp_path: Path, content: bytes, said: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    with pytest.raises(ScanlearnError) as error:
        load_config(PretrainConfig, file, kind="pretrain")
    message = str(error.value)
    assert message.startswith("mine.yaml")
    assert said in message
    assert "\n" not in message
    assert len(message) < 400


@pytest.mark.parametrize(
    "value",
    [
        "[" * 100_000, "[" * 100 + "]" * 100, "a\x00b", "{[a]: 1}", "&a [*a]",
        "!!timestamp 2020-99-99", "9" * 5000, "!!int ''", "\t[", "{a: 1, a: 2}",
        "!!python/object:os.system {}", "*unknown",
    ],
)  # fmt: skip
def test_override_that_is_no_yaml_is_one_sentence(value: str) -> None:
    with pytest.raises(ScanlearnError, match=r"seed=.*the value is not valid YAML") as error:
        load_config(PretrainConfig, None, [f"seed={value}"], kind="pretrain")
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["archvie=a"], "the command line: 'archvie' is not a key (did you mean 'archive'?)"),
        (["archive=a", "mehtod.name=far"], "the command line: 'mehtod' is not a key"),
        ([], "the command line: 'archive' is missing; give it as archive=VALUE"),
        (["batch_size=0"], "the command line: 'archive' is missing; give it as archive=VALUE"),
    ],
)
def test_one_fault_is_one_thing_to_mend(run_model: Any, words: list[str], sentence: str) -> None:
    with pytest.raises(ScanlearnError) as caught:
        load_config(run_model, None, words, kind="pretrain")
    text = str(caught.value)
    assert text.startswith(sentence)
    assert ("1 more to mend" in text) == (words == ["batch_size=0"])


def test_a_value_that_may_be_of_several_types_is_one_thing_to_mend() -> None:
    with pytest.raises(ScanlearnError) as caught:
        load_config(PackSettings, None, ["canvas=large"], kind="pack")
    assert "'canvas' is \"large\"" in str(caught.value)
    assert "more to mend" not in str(caught.value)
    with pytest.raises(ScanlearnError, match=r"\(1 more to mend"):
        load_config(PackSettings, None, ["canvas=large", "workers=-1"], kind="pack")


def test_a_misspelt_key_of_the_command_line_is_not_blamed_on_the_file(
    tmp_path: Path, run_model: Any
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("archive: a\n")
    with pytest.raises(ScanlearnError, match=r"^the command line: 'mehtod' is not a key"):
        load_config(run_model, path, ["mehtod.name=far"], kind="pretrain")
