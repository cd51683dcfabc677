"""What `scanlearn init` writes runs as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scanlearn.config import load_config
from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings
from scanlearn.training.init import init
from scanlearn.training.settings import PretrainConfig
from scanlearn.training.trial import dry_run
from scantune.comparison.dry_run import plan_summary
from scantune.study.plan import CompareConfig


@pytest.mark.long
def test_the_dry_runs_of_a_study_and_of_a_run_take_what_init_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    lines = ["path,patient_id,finding"]
    for name in ("scans", "labeled"):
        Path(name).mkdir()
        for index in range(24):
            pixels = generator.integers(0, 256, (80, 72), dtype=np.uint8)
            Image.fromarray(pixels).save(Path(name) / f"{name}{index}.png")
    lines += [f"labeled/labeled{n}.png,p{n // 2},{n // 2 % 2}" for n in range(24)]
    Path("labels.csv").write_text("\n".join(lines) + "\n")
    # Packed, since an archive tells its columns otherwise than a table does.
    pack("scans", "packed", settings=PackSettings(canvas=80))

    study = init("packed", labels="labels.csv", gpu=False)
    plan = load_config(CompareConfig, study, kind="compare")
    plan.check_inputs()
    text = str(plan_summary(plan))
    assert "finding" in text
    assert "24 scans" in text
    run = init("packed", gpu=False, output=Path("run.yaml"))
    trial = dry_run(load_config(PretrainConfig, run, kind="pretrain"))
    assert "steps" in str(trial)
    assert not Path("runs").exists()
