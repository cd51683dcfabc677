"""The folder ``ssl/`` is a source root; Python's own ``ssl`` must stay what it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

OPEN_CONTEXT = "import ssl; ssl.create_default_context(); print(ssl.OPENSSL_VERSION)"


def _run(code: str, cwd: Path, *flags: str) -> str:
    done = subprocess.run(
        [sys.executable, *flags, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ssl_opens_a_context_from_the_repository_root(root: Path) -> None:
    assert "OpenSSL" in _run(OPEN_CONTEXT, root)


def test_ssl_opens_a_context_in_a_spawned_worker_from_the_root(root: Path) -> None:
    code = (
        "import multiprocessing as m, sys\n"
        "sys.path.insert(0, '')\n"
        "with m.get_context('spawn').Pool(1) as pool:\n"
        "    code = \"__import__('ssl').create_default_context().check_hostname\"\n"
        "    print(pool.apply(eval, (code,)))\n"
    )
    assert _run(code, root).strip() == "True"


@pytest.mark.long
def test_ssl_opens_a_context_in_a_lightning_child_process(root: Path, tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text(
        "import ssl, sys\n"
        "import torch\n"
        "from pytorch_lightning import LightningModule, Trainer\n"
        "class Tiny(LightningModule):\n"
        "    def __init__(self):\n"
        "        super().__init__(); self.layer = torch.nn.Linear(1, 1)\n"
        "    def training_step(self, batch, index):\n"
        "        ssl.create_default_context(); print('context opened', flush=True)\n"
        "        return self.layer(batch).sum()\n"
        "    def configure_optimizers(self):\n"
        "        return torch.optim.SGD(self.parameters(), lr=.1)\n"
        "if __name__ == '__main__':\n"
        "    Trainer(max_steps=1, accelerator='cpu', devices=2, strategy='ddp_spawn',\n"
        "            logger=False, enable_checkpointing=False, enable_progress_bar=False,\n"
        "            ).fit(Tiny(), torch.utils.data.DataLoader(torch.ones(4, 1)))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=root, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("context opened") == 2
