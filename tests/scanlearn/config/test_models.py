from __future__ import annotations

from typing import Any

from scanlearn.config.models import default_of, is_mapping, models_in


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
