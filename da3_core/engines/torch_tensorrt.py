"""Programs of torch_tensorrt: TensorRT for what it knows of a graph, PyTorch for the rest.

Written to its documentation (dynamo.compile, save, torch.export.load). It imports on machines with CUDA only, and has not run anywhere
yet; `Checked` is what says whether a program is right.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from da3_core.engines.backend import Program, refused_where
from da3_core.engines.cache import ArtifactCache
from da3_core.engines.compiled import device_name
from da3_core.engines.export import KEPT_IN_FLOAT32, export


def installed() -> bool:
    """Whether there is a torch_tensorrt."""
    return importlib.util.find_spec("torch_tensorrt") is not None


class TorchTensorRT:
    """Compiles exported graphs in their own types, and keeps them serialised."""

    name = "torch_tensorrt"

    def __init__(self, cache: ArtifactCache, device: torch.device) -> None:
        self._cache, self._device = cache, device

    def build(self, part: nn.Module, inputs: Sequence[Tensor]) -> Program:
        """See `Backend`."""
        with refused_where("torch_tensorrt failed", "; TensorRT without it may do"):
            torch_tensorrt = importlib.import_module("torch_tensorrt")
            made_for = {"device": device_name(self._device), "torch_tensorrt": torch_tensorrt.__version__}
            path = self._cache.get(
                part, inputs, "torch_tensorrt.ep", made_for, lambda path: self._write(torch_tensorrt, part, inputs, path)
            )
            loaded = torch.export.load(path).module()

        def run(*inputs: Tensor) -> tuple[Tensor, ...]:
            return tuple(loaded(*(x.to(self._device, non_blocking=True) for x in inputs)))

        return run

    def _write(self, torch_tensorrt: Any, part: nn.Module, inputs: Sequence[Tensor], path: Path) -> None:
        on_device = [x.to(self._device) for x in inputs]
        program = export(part, on_device, in_float32=KEPT_IN_FLOAT32)
        with torch.cuda.device(self._device):
            compiled = torch_tensorrt.dynamo.compile(program, arg_inputs=on_device, use_explicit_typing=True, disable_tf32=True)
            torch_tensorrt.save(compiled, str(path), arg_inputs=on_device)
