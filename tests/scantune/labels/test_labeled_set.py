from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scanlearn.errors import ScanlearnError
from scantune.labels.labeled_set import read_labels, target_title


def refused(table: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(ScanlearnError) as caught:
        read_labels(table, *args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_blank_labels_are_left_out_and_counted(table: Any) -> None:
    found = read_labels(table({"finding": ["1", None, "0", " ", "nan", "1"]}), "finding")
    assert found.num_blank == 3
    assert found.rows.tolist() == [0, 2, 5]
    assert found.truth.classes.tolist() == [1, 0, 1]
    assert found.classes == ("0", "1")
    assert found.counts == {"0": 1, "1": 2}


def test_patients_are_codes_that_keep_scans_together(table: Any) -> None:
    owners = np.array(["b", "a", "b", "c"])
    found = read_labels(table({"finding": ["1", "0", "0", None]}, owners), "finding")
    assert found.patients[0] == found.patients[2] != found.patients[1]
    assert found.num_patients == 2


def test_numbers_are_ordered_as_numbers_and_words_as_words(table: Any) -> None:
    grades = read_labels(table({"grade": ["10", "9", "2.0", "2"]}), "grade")
    assert grades.classes == ("2", "9", "10")
    words = read_labels(table({"kind": ["virus", "bacteria", "normal"]}), "kind")
    assert words.classes == ("bacteria", "normal", "virus")


def test_given_classes_keep_their_order(table: Any) -> None:
    found = read_labels(
        table({"kind": ["virus", "normal"]}), "kind", classes=("normal", "mild", "virus")
    )
    assert found.classes == ("normal", "mild", "virus")
    assert found.truth.classes.tolist() == [2, 0]


def test_signs_are_classes_only_where_they_are_plus_and_minus(table: Any) -> None:
    assert read_labels(table({"y": ["+", "-", "+", "-"]}), "y").classes == ("+", "-")
    unsure = read_labels(table({"y": ["mild", "?", "none yet", "mild"]}), "y")
    assert (unsure.classes, unsure.num_blank) == (("mild", "none yet"), 1)


def test_scans_of_an_archive_are_named_without_a_row(table: Any) -> None:
    with pytest.raises(ScanlearnError, match=r"^own \(scan images/16.png\): label 'yes'"):
        read_labels(table(WORD), "y", source="own")


ROW_18 = "labels.csv row 18 (scan images/16.png): label 'yes' of 'y' is not one of 0, 1"
WORD = {"y": ["0", "1"] * 8 + ["yes"]}
SIDES, SPLIT = {"y": ["0", "1"]}, {"split_column": "s"}
BOTH = {"a": ["0", "1"], "b": ["0", "1"]}


@pytest.mark.parametrize(
    ("columns", "target", "options", "said"),
    [
        (
            {"pneumonia": ["0", "1"], "age": ["3", "4"]},
            "pneumona",
            {},
            "labels.csv has no column 'pneumona'|did you mean 'pneumonia'|age",
        ),
        ({"y": ["0", "1"]}, "x", {"source": "f.parquet"}, "f.parquet has no column 'x'"),
        # A word among numbers is no class of its own, whether classes are given or not.
        (WORD, "y", {"classes": ("0", "1")}, ROW_18),
        (WORD, "y", {}, ROW_18),
        ({"y": ["1", "1", "-1", "1"]}, "y", {}, "row 4|'-1'"),
        ({"y": ["normal", "virus", "Normal", "normal"]}, "y", {}, "row 4|'Normal'"),
        ({"y": ["yes", "no", "-", "no"]}, "y", {}, "row 4|label '-' of 'y' is not one of no, yes"),
        ({"y": [None, ""]}, "y", {}, "blank for all 2 scans"),
        ({"size": ["1.5", "2.25", "7"]}, "size", {}, "not look like classes"),
        ({"age": [str(age) for age in range(90)] * 2}, "age", {}, "not look like classes"),
        (SIDES | {"s": ["train", "other"]}, "y", SPLIT, "row 3|'other'|train or test"),
        (SIDES | {"s": ["train", None]}, "y", SPLIT, "row 3|blank|train or test"),
        (
            {"a": ["1", "1"], "b": ["0", None]},
            ["a", "b"],
            {},
            "column 'a, b' has no finding that some of 2",
        ),
        (
            {"a": [None, "-1"], "b": ["-1", None]},
            ["a", "b"],
            {},
            "'a, b' has no label 0 or 1 in all 2",
        ),
        (BOTH, ["a", "b"], {"ordinal": True}, "ordinal=true is for one column of grades"),
        (BOTH, "a", {"ordinal": True, "multilabel": True}, "ordinal=true is for one column"),
        (BOTH, ["a", "b"], {"multilabel": False}, "target names several; name one"),
        (BOTH, ["a", "b"], {"classes": ("a",)}, "leave classes out"),
        (
            {"y": ["0", "1"], "made": ["1", "maybe"]},
            "y",
            {"synthetic_column": "made"},
            "row 3 (scan images/1.png): 'maybe' in 'made'",
        ),
        # Synthetic scans are no second class.
        (
            {"y": ["0", "0", "1"], "made": ["0", "0", "1"]},
            "y",
            {"synthetic_column": "made"},
            "one class only, '0'",
        ),
    ],
)
def test_labels_that_cannot_be_used_are_refused_in_words(
    table: Any, columns: dict[str, list[str | None]], target: Any, options: Any, said: str
) -> None:
    message = refused(table(columns), target, **options)
    assert all(words in message for words in said.split("|"))


def test_a_row_number_is_not_given_where_scans_are_missing(table: Any) -> None:
    rows = table({"finding": ["0", "1", "yes"]}, num_rejected=1)
    message = refused(rows, "finding", classes=("0", "1"))
    assert message.startswith("labels.csv (scan images/2.png): label 'yes'")


def test_one_class_only_is_refused(table: Any) -> None:
    message = refused(table({"finding": ["1", "1", None]}), "finding")
    assert "one class only, '1', in all 2 labeled scans" in message


def test_a_split_column_is_read(table: Any) -> None:
    rows = table({"y": ["0", "1", "0", "1"], "split": ["train", "Train", "test", " test"]})
    found = read_labels(rows, "y", split_column="split")
    assert found.split is not None
    assert found.split.tolist() == ["train", "train", "test", "test"]


def test_a_row_without_a_label_needs_no_split(table: Any) -> None:
    rows = table({"y": ["0", None, "1"], "split": ["train", None, "test"]})
    found = read_labels(rows, "y", split_column="split")
    assert len(found) == 2


def test_uncertain_labels_beside_0_and_1_are_left_out_and_counted(table: Any) -> None:
    found = read_labels(table({"edema": ["1", "-1.0", "0", None, "-1", "1"]}), "edema")
    assert found.classes == ("0", "1")
    assert found.rows.tolist() == [0, 2, 5]
    assert (found.num_blank, found.num_uncertain) == (1, 2)


def test_minus_1_among_other_grades_or_asked_for_is_a_class(table: Any) -> None:
    grades = read_labels(table({"y": ["-1", "0", "1", "2"]}), "y")
    assert grades.classes == ("-1", "0", "1", "2")
    asked = read_labels(table({"y": ["-1", "0", "1"]}), "y", classes=("-1", "0", "1"))
    assert len(asked) == 3
    assert asked.num_uncertain == 0


def test_scans_marked_as_validation_train_and_that_is_said(table: Any) -> None:
    rows = table({"y": ["0", "1", "0", "1"], "split": ["train", "val", "Validation", "test"]})
    found = read_labels(rows, "y", split_column="split")
    assert found.split is not None
    assert found.split.tolist() == ["train", "train", "train", "test"]
    assert found.notes[0].startswith(
        "2 scans that 'split' marks as validation are used for training"
    )


def test_several_columns_are_findings_and_what_is_unknown_is_masked_and_counted(table: Any) -> None:
    columns = {"a": ["1", "0", None, None, "-1"], "b": ["0", "-1", "1", None, None]}
    found = read_labels(table(columns), ["a", "b"])
    assert found.truth.task == "multilabel"
    assert found.classes == ("a", "b")
    assert found.truth.matrix.tolist() == [[1, 0], [0, -1], [-1, 1]]
    assert found.rows.tolist() == [0, 1, 2]
    assert (found.num_blank, found.num_uncertain) == (1, 1)
    assert found.unknown == {"a": 1, "b": 1}
    assert found.uncertain == (0, 1)
    assert found.counts == {"a": 1, "b": 1}


def test_a_column_with_a_bar_lists_findings(table: Any) -> None:
    rows = table({"f": ["Mass|Edema", "No Finding", None, "Edema"]})
    found = read_labels(rows, "f")
    assert found.truth.task == "multilabel"
    assert found.classes == ("Edema", "Mass")
    assert found.truth.matrix.tolist() == [[1, 1], [0, 0], [1, 0]]
    assert found.num_blank == 1


def test_a_column_without_a_bar_lists_findings_where_that_is_said(table: Any) -> None:
    rows = table({"f": ["Mass", "No Finding", "Edema"]})
    assert read_labels(rows, "f").classes == ("Edema", "Mass", "No Finding")
    found = read_labels(rows, "f", multilabel=True)
    assert found.classes == ("Edema", "Mass")
    barred = table({"f": ["a|b", "c", "c"]})
    assert read_labels(barred, "f", multilabel=False).classes == ("a|b", "c")


def test_grades_keep_their_order_and_are_their_own_task(table: Any) -> None:
    found = read_labels(table({"g": ["2", "10", "0", "2"]}), "g", ordinal=True)
    assert found.truth.task == "ordinal"
    assert found.classes == ("0", "2", "10")


def test_synthetic_scans_are_marked_and_counted_apart(table: Any) -> None:
    columns = {"y": ["0", "1", "1", "0"], "made": [None, "0", "YES", "True"]}
    owners = np.array(["a", "b", "b", "new"])
    found = read_labels(table(columns, owners), "y", synthetic_column="made")
    assert found.truth.is_real.tolist() == [True, True, False, False]
    assert (found.num_scans, found.num_synthetic, found.num_patients) == (2, 2, 2)
    assert found.counts == {"0": 1, "1": 1}
    assert len(found) == 4


def test_a_synthetic_scan_may_not_be_marked_test_and_needs_no_split(table: Any) -> None:
    columns = {"y": ["0", "1", "1", "0", "1"], "s": ["train", "train", None, "test", "test"]}
    rows = table({**columns, "made": ["0", "0", "1", "0", "0"]})
    assert len(read_labels(rows, "y", split_column="s", synthetic_column="made")) == 5
    rows = table({**columns, "made": ["0", "0", "0", "0", "1"]})
    message = refused(rows, "y", split_column="s", synthetic_column="made")
    assert "row 4" in message
    rows = table({**columns, "made": ["0", "0", "1", "0", "1"]})
    message = refused(rows, "y", split_column="s", synthetic_column="made")
    assert "row 6 (scan images/4.png): split column 's' is test for a synthetic scan" in message


def test_what_is_computed_archive_by_archive_comes_back_in_order(table: Any) -> None:
    found = read_labels(table({"y": ["0", "1", "0", "1"]}), "y")
    both = replace(found, sources=np.array([0, 1, 0, 1]), rows=np.array([5, 6, 7, 8]))

    def texts(source: int, rows: np.ndarray) -> np.ndarray:
        return np.array([f"{'ab'[source] * (source + 1)}{row}" for row in rows])

    assert both.gathered(texts).tolist() == ["a5", "bb6", "a7", "bb8"]
    assert both.gathered(texts, np.array([3, 0])).tolist() == ["bb8", "a5"]
    assert found.gathered(texts).tolist() == ["a0", "a1", "a2", "a3"]


def test_a_part_of_a_set_keeps_what_belongs_to_its_scans(table: Any) -> None:
    columns = {"y": ["0", "1", "1"], "made": ["0", "1", "0"], "s": ["train", "train", "test"]}
    found = read_labels(table(columns), "y", split_column="s", synthetic_column="made")
    part = found[np.array([1, 2])]
    assert part.rows.tolist() == [1, 2]
    assert part.truth.is_real.tolist() == [False, True]
    assert part.split is not None
    assert part.split.tolist() == ["train", "test"]


def test_a_target_of_many_columns_has_a_short_title() -> None:
    assert target_title("y") == "y"
    assert target_title(["a", "b"]) == "a, b"
    assert target_title(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
