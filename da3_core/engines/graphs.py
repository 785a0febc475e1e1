"""A network's parts as ONNX files, to build engines from elsewhere: with trtexec, on another machine, in another language."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from da3_core.engines.backend import Eager, Program
from da3_core.engines.cache import artifact_name
from da3_core.engines.parity import write_reference
from da3_core.engines.tensorrt import write_strongly_typed

GRAPH, REFERENCE = "part.onnx", "reference.safetensors"


class GraphFiles:
    """Writes parts into folders of their own, and runs them in PyTorch."""

    name = "onnx files"

    def __init__(self, folder: Path, replace: bool = False) -> None:
        self.folders: list[Path] = []
        self._folder, self._replace = folder, replace

    def build(self, part: nn.Module, inputs: Sequence[Tensor]) -> Program:
        """See `Backend`. Raises FileExistsError where there is such a folder already, unless it may be replaced."""
        folder = self._folder / artifact_name(part, inputs)
        if folder.exists() and not self._replace:
            raise FileExistsError(f"{folder} is there already: --force replaces it")
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".unfinished-") as unfinished:
            written = Path(unfinished) / folder.name
            written.mkdir()
            write_strongly_typed(part, inputs, written / GRAPH)
            write_reference(part, inputs, written / REFERENCE)
            shutil.rmtree(folder, ignore_errors=True)
            written.rename(folder)
        self.folders.append(folder)
        return Eager(torch.device("cpu")).build(part, inputs)
