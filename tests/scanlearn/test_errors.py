from __future__ import annotations

import subprocess
import sys


def test_what_decodes_scans_loads_no_torch() -> None:
    code = (
        "import sys, scanlearn.packing.parallel, scanlearn.packing.prepare;"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
