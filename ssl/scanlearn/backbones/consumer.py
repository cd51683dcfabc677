"""What other libraries make of an exported network, in a process that knows nothing of scanlearn.

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
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import safetensors.torch
from jaxtyping import Float
from torch import Tensor

from scanlearn.backbones.backbone import Backbone, registered_in
from scanlearn.errors import ScanlearnError

WEIGHTS = "model.safetensors"
# In the lines by which an export is loaded.
FOLDER = "FOLDER"


@dataclass(frozen=True)
class Loading:
    """The lines by which a library loads an export: a user's, and those that are tried.

    Args:
        library: Its name, for messages.
        lines: Python that leaves a ``model``; FOLDER stands for the folder.
        features: Python that makes features ``[b d]`` of ``model`` and ``views``.
        is_last_map: Whether these are the averages of the last feature map, as of a segmentation
            encoder, not the backbone's own features.
        before: Python that is run first, where a network is known to timm through a user's module.
    """

    library: str
    lines: str
    features: str = "model.eval()(views)"
    is_last_map: bool = False
    before: str = ""

    @property
    def call(self) -> str:
        """Returns the lines; of the one call that timm needs the call alone."""
        return self.lines.removeprefix("import timm\nmodel = ")

    def program(self, folder: Path) -> str:
        """Returns what is run in the other process to have the features of an export."""
        lines = self.lines.replace(FOLDER, json.dumps(str(folder.absolute()))[1:-1])
        return f"{self.before}\n{lines}\nfeatures = {self.features}"


TIMM = Loading(
    "timm",
    f'import timm\nmodel = timm.create_model("local-dir:{FOLDER}", pretrained=True, num_classes=0)',
)
TIMM_CLASSIFIER = Loading("timm", TIMM.lines.replace(", num_classes=0", ""))


def loading_of(backbone: Backbone) -> Loading:
    """Returns how timm loads a backbone folder, by itself where its function for it does that.

    A function that a user has registered may take ``pretrained`` and return random weights.
    """
    before = registering(backbone.name)
    if before or not getattr(backbone.network, "pretrained_cfg", None):
        return plain_loading(backbone)
    return TIMM_CLASSIFIER if backbone.num_classes else TIMM


def plain_loading(backbone: Backbone) -> Loading:
    """Returns how timm's network is built and takes weights from a file, strictly."""
    arguments = {
        "num_classes": backbone.num_classes,
        "in_chans": backbone.channels,
        **backbone.model_args,
    }
    written = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    lines = (
        "import timm\nfrom safetensors.torch import load_file\n"
        f"model = timm.create_model({json.dumps(backbone.name)}, {written})\n"
        f'model.load_state_dict(load_file("{FOLDER}/{WEIGHTS}"))'
    )
    return Loading("timm", lines, before=registering(backbone.name))


def registering(name: str) -> str:
    """Returns the Python by which another process learns of a network; none for timm's own.

    Raises:
        ScanlearnError: It is registered in a session that no other process can repeat.
    """
    module = registered_in(name)
    if module is None:
        return ""
    paths = [os.path.abspath(path) for path in sys.path]  # noqa: PTH100 - "" is where one stands
    lines = f"import sys\nsys.path.extend(path for path in {paths!r} if path not in sys.path)\n"
    if module != "__main__":
        return f"{lines}import {module}"
    file = Path(str(sys.modules[module].__file__)).absolute()
    # As multiprocessing does: what stands under `if __name__ == "__main__":` is not run.
    return f"{lines}import runpy\nrunpy.run_path({str(file)!r}, None, '__mp_main__')"


# One request and one answer per line: the program, the views' file and the answer's file; then an
# empty string, or the last line of what went wrong.
_PROGRAM = """
import json
import sys
answers, sys.stdout = sys.stdout, sys.stderr
for line in sys.stdin:
    program, probe, answer = json.loads(line)
    try:
        import safetensors.torch
        import torch
        scope = {"torch": torch, "views": safetensors.torch.load_file(probe)["views"]}
        with torch.no_grad():
            exec(program, scope)
        safetensors.torch.save_file({"features": scope.pop("features").contiguous()}, answer)
        scope.clear()
        problem = ""
    except Exception as error:
        told = str(error).strip().splitlines() or ["no message"]
        problem = type(error).__name__ + ": " + told[-1]
    print(json.dumps(problem), file=answers, flush=True)
"""


class _ConsumerProcess:
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


_process = _ConsumerProcess()


def consumer_features(
    folder: Path, views: Float[Tensor, "b c s s"], *, loading: Loading = TIMM
) -> Float[Tensor, "b d"]:
    """Returns what a library alone makes of standardised views with an export, in its own process.

    Raises:
        ScanlearnError: If it cannot load it; the message is its last line.
    """
    with tempfile.TemporaryDirectory(prefix="scanlearn-reload-") as scratch:
        probe, answer = Path(scratch, "probe.safetensors"), Path(scratch, "answer.safetensors")
        safetensors.torch.save_file({"views": views}, probe)
        problem = _process.ask(loading.program(folder), str(probe), str(answer))
        if problem or not answer.is_file():
            raise ScanlearnError(
                f"{folder}: {loading.library} could not load the export in a process of its own: "
                f"{problem}"
            )
        features: Tensor = safetensors.torch.load_file(answer)["features"]
    return features
