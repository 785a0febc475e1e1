"""Programs that onnxruntime runs on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from da3_core.engines.backend import Program, ProgramError, refused_where
from da3_core.engines.cache import ArtifactCache
from da3_core.engines.export import OPSET, write_onnx

ERRORS_ONLY = 3  # it warns of every constant that it leaves to run time
NEEDS = "pip install onnx onnxscript onnxruntime"


class OnnxRuntime:
    """Exports parts, and runs them in onnxruntime with as many threads as torch has."""

    name = "onnx"

    def __init__(self, cache: ArtifactCache) -> None:
        self._cache = cache

    def build(self, part: nn.Module, inputs: Sequence[Tensor]) -> Program:
        """See `Backend`."""
        try:
            import onnx
            import onnxruntime
            import onnxscript
        except ImportError as error:
            raise ProgramError(f"{error}: {NEEDS}") from error
        made_for = {"opset": str(OPSET), "onnx": onnx.__version__, "onnxscript": onnxscript.__version__}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = ERRORS_ONLY
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # what reads, publishes and writes wants the cores, too
        with refused_where("onnxruntime failed", "; another version may do: pip install -U onnx onnxscript onnxruntime"):
            path = self._cache.get(part, inputs, "part.onnx", made_for, lambda path: write_onnx(part, inputs, path))
            return _program(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))


def _program(session: Any) -> Program:
    names = [node.name for node in session.get_inputs()]

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        arrays = {name: x.contiguous().numpy() for name, x in zip(names, inputs, strict=True)}
        return tuple(torch.from_numpy(y) for y in session.run(None, arrays))

    return run
