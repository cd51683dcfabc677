"""Whether the phantom measures what is planted in it: one lever of the dial at a time.

    python benchmarks/phantom.py                   about 20 minutes on two idle cores
    python benchmarks/phantom.py --quick           one seed of each, about 7 minutes, no proof

Everything is drawn by a program: no figure here is evidence about real scans. SimCLR is pretrained
with both levers weak, with the crop alone strong, and with the photometric lever alone strong; a
linear probe on the frozen features then reads each planted task on the eyes of other patients. The
strengths of the tasks were set on the first phantom seed; the second, never looked at while setting
them, confirms. A lever's effect is the AUROC with the lever weak minus that with it strong, the
mean over pretraining seeds.

Claims, each on both phantoms:
- a strong crop hurts `lesion`, and strong photometric changes hurt `pallor`, by .02 or more;
- each lever's effect on `texture` is under a third of its effect on its own task;
- `null` gives nothing away to any arm, and a 16 x 16 thumbnail does not give `lesion` away.

Exits with 1 where a claim fails. A run that was stopped goes on with `--work` the same folder.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import hush, options, save

from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import Backbone, BackboneConfig, build_backbone
from scanlearn.backbones.weights import load_backbone
from scanlearn.features.batch_norm import WholeScans
from scanlearn.features.extract import extract, thumbnail_features
from scanlearn.methods import SimCLRConfig
from scanlearn.packing.sources import open_archive
from scanlearn.phantom.phantom import PhantomSpec, draw_phantom
from scanlearn.phantom.tasks import TASKS
from scanlearn.training.pretrain import pretrain
from scanlearn.training.settings import PretrainConfig, ViewsConfig
from scanlearn.views.scale import Scale
from scantune.labels.labeled_set import read_labels
from scantune.scoring import score_features
from scantune.statistics.intervals import estimate, patient_weights

SIZE = 32
CANVAS = 128
PATIENTS = 300
TESTED_PATIENTS = 400
BATCH = 64
STEPS = 600
# At SimCLR's own .1 the crop and the jitter of scale 1 together collapse a network this small.
TEMPERATURE = 0.2
BACKBONE = BackboneConfig(name="test_resnet")

ARMS = {
    "weak": Scale(crop=0.5, geometry=0.5, photometric=0.5),
    "strong_crop": Scale(crop=1.0, geometry=0.5, photometric=0.5),
    "strong_photometric": Scale(crop=0.5, geometry=0.5, photometric=1.0),
}
# The task that each lever is meant to hurt.
OWN_TASK = {"crop": "lesion", "photometric": "pallor"}

LEAST_EFFECT = 0.02
LARGEST_SHARE = 1 / 3
# Four standard errors of an AUROC at chance among 800 eyes.
NULL_MARGIN = 0.08
THUMBNAIL_LIMIT = 0.65

Aurocs = dict[str, float]


def probe(features: np.ndarray, archive: Archive) -> Aurocs:
    """AUROC of a linear probe on every planted task, by patient-level folds."""
    found = {}
    for task in TASKS:
        labeled = read_labels(archive, task)
        scores = score_features(features, labeled, learners=("linear",), label_seeds=1)
        found[task] = estimate(scores, "linear", "all", patient_weights(scores, replicates=1)).auroc
    return found


def probe_backbone(backbone: Backbone, unlabeled: Archive, labeled: Archive) -> Aurocs:
    features = extract(backbone, labeled, size=SIZE, mean=unlabeled.mean, std=unlabeled.std)
    return probe(features, labeled)


def measure(phantom_seed: int, seeds: list[int], steps: int, work: Path) -> dict[str, list[Aurocs]]:
    """AUROC per arm, pretraining seed and task on one phantom."""
    # Another seed draws other patients, pictured by the same cameras.
    sources = [
        f"phantom:patients={patients},seed={seed},size={CANVAS}"
        for patients, seed in ((PATIENTS, phantom_seed), (TESTED_PATIENTS, phantom_seed + 1000))
    ]
    unlabeled, labeled = (open_archive(source, cache=work / "cache") for source in sources)
    measured: dict[str, list[Aurocs]] = {
        "thumbnail": [probe(thumbnail_features(labeled), labeled)],
        "random": [],
    }
    for seed in seeds:
        untrained = build_backbone(BACKBONE, unlabeled.shape[0], seed)
        WholeScans(unlabeled, SIZE, unlabeled.mean, unlabeled.std).set_statistics(untrained)
        measured["random"].append(probe_backbone(untrained, unlabeled, labeled))
        for arm, scale in ARMS.items():
            started = time.perf_counter()
            config = PretrainConfig(
                archive=str(unlabeled.path),
                output=str(work / f"phantom{phantom_seed}" / f"{arm}-{seed}-{steps}"),
                backbone=BACKBONE,
                method=SimCLRConfig(temperature=TEMPERATURE),
                views=ViewsConfig(scale=scale, size=SIZE),
                batch_size=BATCH,
                steps=steps,
                seed=seed,
                precision="fp32",
            )
            backbone, _ = load_backbone(pretrain(config).backbone)
            found = probe_backbone(backbone, unlabeled, labeled)
            measured.setdefault(arm, []).append(found)
            line = "  ".join(f"{task} {value:.3f}" for task, value in found.items())
            took = time.perf_counter() - started
            print(
                f"phantom {phantom_seed}  seed {seed}  {arm:19s} {line}  {took:.0f} s", flush=True
            )
    return measured


def effects(measured: dict[str, list[Aurocs]], lever: str, task: str) -> np.ndarray:
    """What making one lever strong takes from a task's AUROC, per pretraining seed."""
    pairs = zip(measured["weak"], measured[f"strong_{lever}"], strict=True)
    return np.array([weak[task] - strong[task] for weak, strong in pairs])


def claims(measured: dict[str, list[Aurocs]], figures: dict[str, float], name: str) -> list[str]:
    """Fills in the figures of one phantom and returns the claims that fail on it."""
    failed = []
    for arm, found in measured.items():
        for task in TASKS:
            figures[f"{name}_{arm}_{task}"] = float(np.mean([each[task] for each in found]))
    for lever, own in OWN_TASK.items():
        effect = {task: float(effects(measured, lever, task).mean()) for task in TASKS}
        for task, value in effect.items():
            figures[f"{name}_effect_of_{lever}_on_{task}"] = value
        if effect[own] < LEAST_EFFECT:
            failed.append(f"{name}: a strong {lever} lever takes {effect[own]:.3f} from {own}")
        if abs(effect["texture"]) >= LARGEST_SHARE * effect[own]:
            failed.append(f"{name}: {lever} moves texture by {effect['texture']:.3f}")
    for arm in measured:
        null = figures[f"{name}_{arm}_null"]
        if abs(null - 0.5) > NULL_MARGIN:
            failed.append(f"{name}: null reads {null:.3f} from {arm}")
    thumbnail = figures[f"{name}_thumbnail_lesion"]
    if thumbnail >= THUMBNAIL_LIMIT:
        failed.append(f"{name}: a thumbnail reads lesion at {thumbnail:.3f}")
    return failed


def print_table(measured: dict[str, list[Aurocs]], title: str) -> None:
    print(f"\n{title}\n{'':24s}" + "".join(f"{task:>18s}" for task in TASKS))
    for arm, found in measured.items():
        cells = [[each[task] for each in found] for task in TASKS]
        print(f"{arm:24s}" + "".join(f"{np.mean(c):11.3f} ±{np.std(c):5.3f}" for c in cells))
    for lever in OWN_TASK:
        cells = [list(effects(measured, lever, task)) for task in TASKS]
        means = "".join(f"{np.mean(c):+11.3f} ±{np.std(c):5.3f}" for c in cells)
        print(f"{'effect of ' + lever:24s}{means}")


def draw_rate(side: int, scans: int = 60) -> float:
    """Scans drawn per second of one core."""
    spec = PhantomSpec(height=side, width=side)
    draw_phantom(spec, 0)
    started = time.process_time()
    for index in range(scans):
        draw_phantom(spec, index)
    return scans / (time.process_time() - started)


def main() -> int:
    parser = options(__doc__, quick="one pretraining seed each")
    parser.add_argument("--phantoms", type=int, nargs="+", default=[0, 1], help="phantom seeds")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="pretraining seeds")
    parser.add_argument("--work", type=Path, help="folder for archives and runs; kept")
    arguments = parser.parse_args()
    hush()
    seeds = arguments.seeds[:1] if arguments.quick else arguments.seeds
    print("Drawn by a program; no evidence about real scans.")
    figures = {f"draw_{side}_scans_per_s": draw_rate(side) for side in (64, 96)}
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for phantom_seed in arguments.phantoms:
            measured = measure(phantom_seed, seeds, STEPS, arguments.work or Path(folder))
            title = f"phantom {phantom_seed}: AUROC, mean ± std over {len(seeds)} pretraining seeds"
            print_table(measured, title)
            failed += claims(measured, figures, f"phantom{phantom_seed}")
    print("\n" + "\n".join(f"{side}: {rate:.0f}" for side, rate in list(figures.items())[:2]))
    print("\n".join(f"FAILED {claim}" for claim in failed) or "every claim holds")
    save(figures, arguments.json)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
