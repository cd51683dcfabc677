from __future__ import annotations

import subprocess
import sys

import scanlearn.core
from scanlearn import plain


def test_what_decodes_scans_loads_no_torch() -> None:
    code = (
        "import sys, scanlearn.scans.pool, scanlearn.scans.prepare; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_core_passes_the_same_types_on() -> None:
    for name in ("Scan", "ScanlearnError", "Units"):
        assert getattr(scanlearn.core, name) is getattr(plain, name)
