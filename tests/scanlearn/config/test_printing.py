from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scanlearn.config import default_yaml, json_schema, load_config
from scanlearn.config.printing import default_of, is_mapping, models_in


def test_default_yaml_is_whole_commented_and_loads(tmp_path: Path, run_model: Any) -> None:
    text = default_yaml(run_model, "scanlearn pretrain run.yaml")
    for name, field in run_model.model_fields.items():
        assert f"\n{name}:" in text
        assert f"# {field.description.rstrip('.')}" in text
    path = tmp_path / "run.yaml"
    path.write_text(text)
    assert load_config(run_model, path, kind="pretrain") == run_model(archive="scans")


def test_the_schema_names_every_key(run_model: Any) -> None:
    assert set(json.loads(json_schema(run_model))["properties"]) == set(run_model.model_fields)


def test_models_in_an_annotation_are_found_through_unions(run_model: Any, far_model: Any) -> None:
    found = models_in(run_model.model_fields["method"].annotation)
    assert len(found) == 2
    assert far_model in found
    assert models_in(dict[str, far_model]) == [far_model]
    assert models_in(int | None) == []


def test_a_field_without_a_default_has_none(run_model: Any) -> None:
    assert default_of(run_model.model_fields["archive"]) is None
    assert default_of(run_model.model_fields["batch_size"]) == 128


def test_only_mappings_are_mappings(far_model: Any) -> None:
    assert is_mapping(dict[str, far_model])
    assert not is_mapping(far_model)
