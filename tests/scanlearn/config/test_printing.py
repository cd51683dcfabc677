from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scanlearn.config import default_yaml, json_schema, load_config


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
