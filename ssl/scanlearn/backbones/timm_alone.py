"""timm alone: what it makes of an exported network in a process that knows nothing of scanlearn.

Starting Python, torch and timm takes seconds, so a study's many exports share one such process. It
ends with this one, whose end closes its input.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

import safetensors.torch
from jaxtyping import Float
from torch import Tensor

from scanlearn.errors import ScanlearnError

# One request and one answer per line: the folder, the views' file, the answer's file and the kind;
# then an empty string, or the last line of what went wrong.
_PROGRAM = """
import json
import sys
answers, sys.stdout = sys.stdout, sys.stderr
for line in sys.stdin:
    folder, probe, answer, kind = json.loads(line)
    try:
        import safetensors.torch
        import timm
        import torch
        options = {"num_classes": 0} if kind == "backbone" else {}
        model = timm.create_model("local-dir:" + folder, pretrained=True, **options).eval()
        with torch.no_grad():
            features = model(safetensors.torch.load_file(probe)["views"])
        safetensors.torch.save_file({"features": features.contiguous()}, answer)
        problem = ""
    except Exception as error:
        told = str(error).strip().splitlines() or ["no message"]
        problem = type(error).__name__ + ": " + told[-1]
    print(json.dumps(problem), file=answers, flush=True)
"""


class _TimmProcess:
    """The process and its pipes; started at the first request, and anew when it was ended."""

    def __init__(self) -> None:
        self._running: subprocess.Popen[str] | None = None
        self._starter = 0

    def ask(self, *request: str) -> str:
        """Returns what went wrong with a request; empty where nothing did."""
        for _ in range(2):
            is_new = self._running is None or self._starter != os.getpid()
            if self._running is None or is_new:
                self._running = self._start()
            answer = self._exchange(self._running, json.dumps(request))
            if answer:
                problem: str = json.loads(answer)
                return problem
            status = self._running.wait()
            self.end()
            if is_new:
                break
            # One that served before may have been ended meanwhile, by a Ctrl-C for example.
        return f"its process ended with status {status}; -9 is most often too little memory"

    def end(self) -> None:
        """Ends the process, if this process started one."""
        if self._running is not None and self._starter == os.getpid():
            self._running.kill()
            self._running.communicate()
        self._running = None

    def _start(self) -> subprocess.Popen[str]:
        if not self._starter:
            atexit.register(self.end)
        self._starter = os.getpid()
        # -P keeps the folder one happens to stand in from replacing a module of the same name.
        return subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"},
        )

    @staticmethod
    def _exchange(running: subprocess.Popen[str], request: str) -> str:
        """Returns the line that answers a request; empty where the process ended instead."""
        given: IO[str] | None = running.stdin
        answers: IO[str] | None = running.stdout
        if given is None or answers is None:
            return ""
        try:
            given.write(f"{request}\n")
            given.flush()
        except BrokenPipeError:
            return ""
        return answers.readline()


_timm = _TimmProcess()


def timm_features(
    folder: Path, views: Float[Tensor, "b c s s"], *, classifies: bool = False
) -> Float[Tensor, "b d"]:
    """Returns what timm alone makes of standardised views with a network, in its own process.

    Args:
        classifies: Whether the classifier's logits are asked for, not the features.

    Raises:
        ScanlearnError: If timm cannot load it; the message is timm's last line.
    """
    with tempfile.TemporaryDirectory(prefix="scanlearn-reload-") as scratch:
        probe, answer = Path(scratch, "probe.safetensors"), Path(scratch, "answer.safetensors")
        safetensors.torch.save_file({"views": views}, probe)
        kind = "classifier" if classifies else "backbone"
        problem = _timm.ask(str(folder.absolute()), str(probe), str(answer), kind)
        if problem or not answer.is_file():
            raise ScanlearnError(
                f"{folder}: timm could not load the export in a process of its own: {problem}"
            )
        features: Tensor = safetensors.torch.load_file(answer)["features"]
    return features
