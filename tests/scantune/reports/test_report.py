from __future__ import annotations

import base64
import csv
import hashlib
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from scanlearn.errors import ScanlearnError
from scantune.reports import page_tables, selection
from scantune.reports import report as page
from scantune.reports.writeup import class_effect_sentence
from scantune.study import results as r

VOID = {"meta", "br", "img", "hr", "link", "input"}
Folder = Callable[..., Path]


class Balanced(HTMLParser):
    """Raises where a tag closes that is not the one open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def parsed(path: Path) -> Balanced:
    parser = Balanced()
    parser.feed(path.read_text(encoding="utf-8"))
    parser.close()
    assert parser.open == []
    return parser


def test_report_has_verdict_sections_and_every_arm(
    study_folder: Folder, fake_results: r.Results
) -> None:
    folder = study_folder()
    path = page.write(folder)
    text = path.read_text(encoding="utf-8").replace("\u00a0", " ")
    assert path == folder / "report.html"
    assert fake_results.verdict.sentence in text
    for arm in fake_results.arms:
        assert arm.name in text
    ids = [attrs.get("id") for _, attrs in parsed(path).seen if attrs.get("id")]
    assert ids == [
        "verdict",
        "scale",
        "compared",
        "auroc",
        "differences",
        "labels",
        "matched",
        "training",
        "views",
        "dial",
        "warnings",
        "paper",
        "reproduce",
    ]


def test_report_is_one_balanced_file_that_loads_nothing(study_folder: Folder) -> None:
    path = page.write(study_folder())
    text = path.read_text(encoding="utf-8")
    words = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", words)
    assert [attrs for tag, attrs in parsed(path).seen if tag == "script"] == [{}]
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(attrs["content"] for _, attrs in parsed(path).seen if "http-equiv" in attrs)
    # The page's own script alone may run, and nothing may be loaded.
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    for tag, attrs in parsed(path).seen:
        assert tag not in ("link", "iframe")
        source = attrs.get("src") or attrs.get("href") or "#"
        assert source.startswith(("data:image/png;base64,", "#"))


def test_every_link_inside_the_report_has_its_target(study_folder: Folder) -> None:
    seen = parsed(page.write(study_folder())).seen
    ids = {attrs.get("id") for _, attrs in seen}
    assert all((a["href"] or "").lstrip("#") in ids for tag, a in seen if tag == "a")


def test_every_picture_has_words_for_who_cannot_see_it(study_folder: Folder) -> None:
    seen = parsed(page.write(study_folder())).seen
    assert all(attrs.get("alt") for tag, attrs in seen if tag == "img")
    assert all(attrs.get("aria-label") for tag, attrs in seen if tag == "svg")


def test_hostile_names_are_escaped(study_folder: Folder, fake_results: r.Results) -> None:
    bad = '<script>alert("x")</script>'
    table = tuple(s.model_copy(update={"task": bad}) for s in fake_results.table)
    tasks = tuple(t.model_copy(update={"name": bad}) for t in fake_results.tasks[:1])
    folder = study_folder(title=bad, warnings=(bad,), table=table, tasks=tasks, command=bad)
    path = page.write(folder)
    text = path.read_text(encoding="utf-8")
    assert bad not in text
    assert text.count("<script") == 1
    parsed(path)


def test_no_difference_shown_is_a_verdict(study_folder: Folder, fake_results: r.Results) -> None:
    sentence = "No difference shown between weak (s = 0.5) and strong (s = 1)."
    verdict = fake_results.verdict.model_copy(update={"kind": "none", "sentence": sentence})
    text = page.write(study_folder(verdict=verdict)).read_text(encoding="utf-8")
    assert '<p class="kind">No difference shown</p>' in text
    assert "is better than" not in text.split('id="compared"')[0]


def test_phantom_says_it_is_no_evidence_before_anything_else(study_folder: Folder) -> None:
    text = page.write(study_folder()).read_text(encoding="utf-8")
    head = text.split('id="compared"')[0]
    assert "no evidence about real scans" in head
    real = page.write(study_folder(evidence_note=None)).read_text(encoding="utf-8")
    assert "no evidence about real scans" not in real


def test_unmatched_arms_are_said_at_the_top(study_folder: Folder) -> None:
    matched = r.Matched(ok=False, problems=("seed 1: strong took 7 steps, weak 8",))
    text = page.write(study_folder(matched=matched)).read_text(encoding="utf-8")
    assert "The arms are not matched" in text.split('id="compared"')[0]
    assert "seed 1: strong took 7 steps, weak 8" in text


def test_undefined_auroc_and_missing_curves_do_not_stop_the_report(
    study_folder: Folder, fake_results: r.Results
) -> None:
    nothing = {"auroc": None, "low": None, "high": None, "per_seed": (None, None)}
    table = tuple(s.model_copy(update=nothing) for s in fake_results.table)
    blank = {"difference": None, "low": None, "high": None, "p": None, "p_holm": None, "df": None}
    differences = tuple(d.model_copy(update=blank) for d in fake_results.differences)
    runs = tuple(run.model_copy(update={"curve": r.TrainingCurve()}) for run in fake_results.runs)
    folder = study_folder(table=table, differences=differences, runs=runs)
    (folder / "figures" / "views.png").unlink()
    path = page.write(folder)
    assert "undefined" in path.read_text(encoding="utf-8")
    parsed(path)


def test_undefined_classes_are_counted_beneath_their_table(
    study_folder: Folder, fake_results: r.Results
) -> None:
    words = "AUROCs of a class in a fold are undefined"
    assert words not in page.write(study_folder()).read_text(encoding="utf-8")
    table = tuple(
        s.model_copy(update={"undefined": 4 * (s.task == "lesion")}) for s in fake_results.table
    )
    text = page.write(study_folder(table=table)).read_text(encoding="utf-8")
    assert text.count(f"4 {words}") == 1


def test_what_holds_for_one_draw_alone_is_said_and_crowns_no_arm(
    study_folder: Folder, fake_results: r.Results
) -> None:
    update = {"kind": "higher", "holds_for": "on this draw of labels"}
    verdict = fake_results.verdict.model_copy(update=update)
    differences = tuple(
        d.model_copy(update={"verdict": "higher", "label_draws": 1, "budget": 50})
        for d in fake_results.differences
    )
    folder = study_folder(verdict=verdict, differences=differences)
    text = page.write(folder).read_text(encoding="utf-8")
    assert '<p class="kind">Weak scores higher than strong on this draw of labels</p>' in text
    assert '<td>higher<span class="sub">on this draw of labels</span></td>' in text
    assert "no arm is called better" in text
    assert page.winner(r.read_results(folder)) is None


def test_figures_are_saved_as_files_of_their_own(study_folder: Folder) -> None:
    folder = study_folder()
    page.write(folder)
    names = {path.name for path in (folder / "figures").glob("*.svg")}
    assert names == {
        *(f"scale_{i}.svg" for i in range(1, 5)),
        *(f"auroc_{i}.svg" for i in range(1, 5)),
        "differences_1.svg",
        "differences_2.svg",
        *(f"labels_{i}.svg" for i in range(1, 5)),
        "traces_1.svg",
        "traces_2.svg",
    }
    assert "var(--" not in (folder / "figures" / "auroc_1.svg").read_text().replace("var(--c", "")


def test_folder_without_results_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ScanlearnError, match=r"holds no results\.json"):
        page.write(tmp_path)


def test_results_of_another_form_are_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"format": 9}')
    with pytest.raises(ScanlearnError, match="format"):
        page.write(tmp_path)


def test_leaks_are_shown_where_they_were_looked_for(study_folder: Folder) -> None:
    clean = r.Leak(
        first="unlabeled",
        second="labels",
        first_scans=4000,
        second_scans=600,
        patients=None,
        identical=0,
        near=3,
        near_by_turn={"as it is": 1, "mirrored": 2},
        proposed=20,
        without_contrast=0,
        invalid_scans=0,
        notes=("Patients cannot be compared.",),
    )
    text = page.write(study_folder(leaks=(clean,))).read_text(encoding="utf-8")
    for words in (
        "No leak of pixels found",
        "4,000 and 600",
        "1 as it is, 2 mirrored",
        *clean.notes,
    ):
        assert words in text
    # Patients that nobody compared were said not to be shared.
    assert "None found" not in text
    compared = clean.model_copy(update={"patients": 0, "notes": ()})
    assert "None found" in page.write(study_folder(leaks=(compared,))).read_text(encoding="utf-8")
    leaking = clean.model_copy(update={"second": "unlabeled", "invalid_scans": 7})
    path = page.write(study_folder(leaks=(clean, leaking)))
    text = path.read_text(encoding="utf-8")
    assert "Test scans leak" in text
    assert text.index("not valid for new patients") < text.index('id="compared"')
    assert "None found" not in text
    assert "within unlabeled" in text
    assert "leaks" in [attrs.get("id") for _, attrs in parsed(path).seen]


def test_the_table_of_classes_has_the_pairs_difference_in_each(
    study_folder: Folder, fake_results: r.Results
) -> None:
    rows = [
        r.ClassScore(
            arm=arm,
            name=name,
            scans=40,
            negatives=60,
            auroc=0.8,
            low=0.7,
            high=0.9,
            scores={},
        )
        for name in ("oedema", "effusion", "mass")
        for arm in ("weak", "strong")
    ]
    effects = [
        r.ClassEffect(name=name, a="weak", b="strong", difference=d, p=p, seeds=3)
        for name, d, p in (("oedema", 0.05, 0.012), ("effusion", -0.01, 0.4), ("mass", 0.0, None))
    ]
    path = page.write(study_folder(classes=tuple(rows), class_effects=tuple(effects)))
    text = path.read_text(encoding="utf-8")
    assert '+0.050<span class="sub">p 0.012</span>' in text
    assert "stands apart" in text
    assert "(least corrected p 0.012)" not in text.replace(class_effect_sentence(effects), "")
    cells = [row.split(",") for row in (path.parent / "class_differences.csv").open()]
    assert cells[1][:4] == ["oedema", "weak", "strong", "0.05"]
    # Of an earlier release: nothing was tested, which is said, and there is no such column.
    text = page.write(study_folder(classes=tuple(rows))).read_text(encoding="utf-8")
    assert "These were not tested against each other." in text
    assert '<th class="num" scope="col">weak − strong</th>' not in text


def test_primary_pair_and_row_come_first(fake_results: r.Results) -> None:
    pairs = page_tables.pairs(fake_results)
    assert (pairs[0].a, pairs[0].b) == ("weak", "strong")
    assert pairs[0].rows[0][0].primary
    assert sum(pair.primary for pair in pairs) == 1


def test_all_labels_are_the_last_budget(fake_results: r.Results) -> None:
    assert selection.budgets(fake_results) == [50, 100, "all"]


def test_references_stand_above_trained_arms(fake_results: r.Results) -> None:
    names = [arm.name for arm in selection.ordered_arms(fake_results)]
    assert names == ["thumbnail", "random", "identity", "weak", "strong"]


def test_best_of_a_column_is_a_trained_arm(fake_results: r.Results) -> None:
    table = page_tables.auroc_table(fake_results, "pallor")
    marked = [arm.name for (arm, _), best in zip(table.rows, table.best, strict=True) if best[0]]
    assert marked == ["identity"]


def test_a_parameter_one_arm_lacks_is_a_dash(fake_results: r.Results) -> None:
    arms = list(fake_results.arms)
    arms[2] = arms[2].model_copy(update={"resolved": arms[2].resolved[:1]})
    dial = page_tables.dial_table(fake_results.model_copy(update={"arms": tuple(arms)}))
    assert [values[0] for _, values, _ in dial.rows[1:]] == ["–"] * 6


def test_a_cited_number_is_no_remark_and_any_other_is(fake_results: r.Results) -> None:
    def resolved(source: str) -> tuple[r.Parameter, ...]:
        return (r.Parameter(parameter="crop_min", value="0.2", source=source),)

    sources = ["published: A et al. 2020", "derived from B et al. 2025", "identity"]
    arms = [arm for arm in fake_results.arms if arm.kind == "pretrained"]
    told = [
        arm.model_copy(update={"resolved": resolved(source)})
        for arm, source in zip(arms, sources, strict=True)
    ]
    dial = page_tables.dial_table(fake_results.model_copy(update={"arms": tuple(told)}))
    ((title, values, remark),) = dial.rows
    assert title == "Smallest crop, of the area"
    assert values == ["0.2"] * 3
    assert remark == f"{told[1].name}: derived from B et al. 2025"


def test_a_source_that_all_arms_share_is_named_once(
    study_folder: Folder, fake_results: r.Results
) -> None:
    source = "policy xray: ours, to be measured"
    changed = (r.Parameter(parameter="crop_min", value="0.3", source=source),)
    arms = tuple(
        arm.model_copy(update={"resolved": changed}) if arm.kind == "pretrained" else arm
        for arm in fake_results.arms
    )
    ((_, _, remark),) = page_tables.dial_table(fake_results.model_copy(update={"arms": arms})).rows
    assert remark == source
    number = "the published recipe, number for number"
    assert number in page.write(study_folder()).read_text(encoding="utf-8")
    text = page.write(study_folder(arms=arms)).read_text(encoding="utf-8")
    assert number not in text
    assert "changed where the note names a policy" in text


def test_what_several_classes_and_a_given_split_are_is_said(
    study_folder: Folder, fake_results: r.Results
) -> None:
    mean, fold = "mean over them, each against the rest", "scans in the training fold"
    plain = page.write(study_folder()).read_text(encoding="utf-8")
    assert mean not in plain
    assert fold in plain
    change = {"design": "split", "classes": ("a", "b", "c")}
    tasks = tuple(task.model_copy(update=change) for task in fake_results.tasks)
    text = page.write(study_folder(tasks=tasks)).read_text(encoding="utf-8")
    assert mean in text
    assert fold not in text
    assert "in the folds used" in plain
    assert "with the test set used" in text
    assert "scans in the training set" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.2, "3.2 s"), (31, "31 s"), (212.0, "3 min 32 s"), (7325.0, "2 h 02 min")],
)
def test_durations_are_read_at_a_glance(seconds: float, text: str) -> None:
    assert page_tables.duration(seconds) == text


@pytest.mark.parametrize(
    ("replaced", "said", "silent"),
    [
        ({}, "No model scores a scan of a patient it was trained on", "patients unknown"),
        (
            {"patients": None, "unknown_patients": 600, "stand_ins": 600},
            "600 scans, patients unknown; each scan counted as one",
            "No model scores a scan of a patient",
        ),
        (
            {"design": "test"},
            "Hospitals, devices and tasks other than those of the external test set",
            "Other hospitals",
        ),
    ],
)
def test_the_report_claims_of_patients_and_test_sets_what_is_known(
    study_folder: Folder, fake_results: r.Results, replaced: dict[str, Any], said: str, silent: str
) -> None:
    tasks = tuple(task.model_copy(update=replaced) for task in fake_results.tasks)
    folder = study_folder(tasks=tasks)
    text = page.write(folder).read_text(encoding="utf-8")
    assert said in text
    assert silent not in text


def test_a_report_is_written_anew_without_torch(study_folder: Folder) -> None:
    folder = study_folder()
    code = (
        "import sys\n"
        "from scantune.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'timm', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    words = [sys.executable, "-c", code, "report", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert str(folder / "report.html") in done.stdout
    assert page.report(folder).is_file()


def test_every_table_is_a_csv_of_as_many_rows(
    study_folder: Folder, fake_results: r.Results
) -> None:
    folder = study_folder()
    page.write(folder)
    rows = {
        path.name: list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        for path in folder.glob("*.csv")
    }
    differences = rows["differences.csv"]
    assert len(differences) == len(fake_results.differences)
    first = fake_results.differences[0]
    assert float(differences[0]["low"]) == pytest.approx(first.low, rel=1e-5)
    assert differences[0]["p_holm"] == ""
    assert len(rows["results.csv"]) == len(fake_results.table)
    assert len(rows["runs.csv"]) == len(fake_results.runs)
    assert {row["arm"] for row in rows["augmentation.csv"]} == {"identity", "weak", "strong"}
    assert "leaks.csv" not in rows


def test_a_study_of_a_hundred_arms_stays_below_ten_megabytes(
    study_folder: Folder, fake_results: r.Results, score: Callable[..., r.Score]
) -> None:
    dials = [r.Dial(crop=k / 80, geometry=0, photometric=0, acquisition=0) for k in range(100)]
    first = next(arm for arm in fake_results.arms if arm.resolved)
    arms = [
        first.model_copy(update={"name": name, "scale": dial})
        for name, dial in zip(["weak", "strong", *map(str, range(98))], dials, strict=True)
    ]
    table = [score(arm.name, 0.7, low=0.6, high=0.8, task="lesion") for arm in arms]
    pair = next(d for d in fake_results.differences if d.primary)
    others = [
        pair.model_copy(update={"a": a.name, "b": b.name, "primary": False})
        for place, a in enumerate(arms)
        for b in arms[:place]
        if (a.name, b.name) != ("strong", "weak")
    ]
    run = next(run for run in fake_results.runs if run.arm == "weak")
    runs = [run.model_copy(update={"arm": arm.name, "seed": s}) for arm in arms for s in range(3)]
    sheets = [r.Sheet(title=f"{k}", file="large.png", arms=(f"{k}",)) for k in range(25)]
    folder = study_folder(
        arms=tuple(arms),
        table=tuple(table),
        differences=(pair, *others),
        runs=tuple(runs),
        sheets=tuple(sheets),
    )
    (folder / "figures" / "large.png").write_bytes(bytes(700_000))
    path = page.write(folder)
    assert path.stat().st_size < 10e6
    text = path.read_text(encoding="utf-8")
    assert "4,910 further pairs are in differences.csv" in text
    assert "21 further sheets are in the figures folder" in text
    assert "Of 100 arms" in text
    assert len((folder / "differences.csv").read_text().splitlines()) == 4951


def test_tables_and_figures_of_an_earlier_plan_are_taken_away(study_folder: Folder) -> None:
    folder = study_folder()
    page.write(folder)
    before = {path.name for path in folder.rglob("*")}
    results = r.Results.model_validate_json((folder / "results.json").read_text())
    fewer = results.model_copy(update={"dose": (), "joint_dose": ()})
    stale = ("label_free.csv", "figures/joint_9.svg", "figures/auroc_7.png")
    own = ("mine.csv", "figures/own_1.svg", "figures/views_9.png")
    for name in (*stale, *own):
        (folder / name).write_text("x")
    (folder / "results.json").write_text(fewer.model_dump_json())
    page.write(folder)
    after = {path.name for path in folder.rglob("*")}
    assert {Path(name).name for name in own} <= after
    assert not {Path(name).name for name in stale} & after
    gone = before - after
    assert gone <= {"dose.csv", "dose_curve.csv", "joint_1.svg", "joint_1.png"}
