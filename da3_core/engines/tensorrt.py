"""Programs that TensorRT, or TensorRT for RTX, runs on a GPU.

Parts go through ONNX into strongly typed networks: what the graph has in float32 stays in float32. An engine is bound to the chip and to
the version of TensorRT that built it, and both are in its name.

Tests build engines with TensorRT for RTX, which does so without a GPU. Running them wants a GPU that it knows (compute capability 7.5,
8.0, 8.6, 8.9 or 12), which nobody had while this was written: on every machine `Checked` is what says whether an engine is right.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from da3_core.engines.backend import Program, ProgramError, refused_where
from da3_core.engines.cache import ArtifactCache
from da3_core.engines.export import write_onnx

MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")  # the last is what PyPI's wheel of TensorRT for RTX brings
NEEDS = (
    "TensorRT comes with JetPack (apt install python3-libnvinfer); on a desktop GPU, pip install 'da3[tensorrt]' brings TensorRT for RTX"
)
OPSET = 18  # the oldest that the exporter writes: TensorRT 10.3 is of 2024
DTYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT64": torch.int64,
    "UINT8": torch.uint8,
}

logger = logging.getLogger(__name__)


def installed() -> str | None:
    """Which of TensorRT's Python modules there is."""
    return next((name for name in MODULES if importlib.util.find_spec(name) is not None), None)


class TensorRT:
    """Builds engines, and runs them on torch's current stream."""

    name = "tensorrt"

    def __init__(self, cache: ArtifactCache, device: torch.device) -> None:
        self._cache, self._device = cache, device

    def build(self, part: nn.Module, inputs: Sequence[Tensor]) -> Program:
        """See `Backend`."""
        with refused_where("TensorRT failed", "; it has to be version 10 or later", but=(torch.OutOfMemoryError,)):
            return self._build(part, inputs)

    def _build(self, part: nn.Module, inputs: Sequence[Tensor]) -> Program:
        trt, log = import_tensorrt()
        made_for = {"device": torch.cuda.get_device_name(self._device), "tensorrt": f"{trt.__name__} {trt.__version__}"}
        chip = "sm{}{}".format(*torch.cuda.get_device_capability(self._device))
        file = re.sub(r"[^\w.]+", "-", f"{chip} {made_for['device']} {made_for['tensorrt']}.plan")
        path = self._cache.get(part, inputs, file, made_for, lambda path: self._write(trt, log, part, inputs, path))
        with torch.cuda.device(self._device):
            engine = trt.Runtime(log).deserialize_cuda_engine(path.read_bytes())
            if engine is None:
                raise ProgramError(f"TensorRT does not load {path}: {log.last_error}; da3 engine build --force builds it anew")
            return program(trt, engine, self._device)

    def _write(self, trt: Any, log: Any, part: nn.Module, inputs: Sequence[Tensor], path: Path) -> None:
        capability = torch.cuda.get_device_capability(self._device)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            graph = Path(folder) / "part.onnx"
            write_strongly_typed(part, [x.to(self._device) for x in inputs], graph)
            path.write_bytes(plan_from_onnx(trt, log, graph, [capability]))


def write_strongly_typed(part: nn.Module, inputs: Sequence[Tensor], path: Path) -> None:
    """The ONNX graph that TensorRT is given, here or by `trtexec --stronglyTyped`. Raises ProgramError."""
    with refused_where("no ONNX", ": pip install -U onnx onnxscript may help"):
        write_onnx(part, inputs, path, OPSET, strongly_typed=True)


def plan_from_onnx(trt: Any, log: Any, path: Path, capabilities: Sequence[tuple[int, int]]) -> bytes:
    """A serialised engine for chips of these compute capabilities, of which TensorRT proper takes none but the present one.

    Raises ProgramError with TensorRT's own words.
    """
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(path)):
        raise ProgramError(f"TensorRT does not take the graph: {parser.get_error(0).desc()}")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    if trt.__name__ != "tensorrt":
        config.num_compute_capabilities = len(capabilities)
        for i, capability in enumerate(capabilities):
            config.set_compute_capability(_compute_capability(trt, capability), i)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ProgramError(f"TensorRT does not build the engine: {log.last_error}")
    return bytes(plan)


def program(trt: Any, engine: Any, device: torch.device) -> Program:
    """Calls an engine with tensors, in the order of its network's inputs; they and the outputs are its buffers."""
    context = engine.create_execution_context()
    if context is None:
        raise ProgramError("TensorRT has no room for the engine: free memory of the GPU, or take fewer views or smaller images")
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    input_names = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    made = [
        (name, tuple(engine.get_tensor_shape(name)), DTYPES[engine.get_tensor_dtype(name).name])
        for name in names
        if name not in input_names
    ]

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        on_device = {name: x.to(device, non_blocking=True) for name, x in zip(input_names, inputs, strict=True)}
        outputs = {name: torch.empty(shape, dtype=dtype, device=device) for name, shape, dtype in made}
        for name, tensor in (on_device | outputs).items():
            context.set_tensor_address(name, tensor.data_ptr())
        if not context.execute_async_v3(torch.cuda.current_stream(device).cuda_stream):
            raise RuntimeError("TensorRT did not start the engine; its log says why")
        return tuple(outputs.values())

    return run


def import_tensorrt() -> tuple[Any, Any]:
    """The module, and a logger for it. Raises ProgramError saying where it comes from."""
    name = installed()
    if name is None:
        raise ProgramError(f"TensorRT is not installed: {NEEDS}")
    try:
        trt = importlib.import_module(name)
    except ImportError as error:
        raise ProgramError(f"{name} does not load ({error}): {NEEDS}") from error

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        """TensorRT's messages, in Python's log."""

        last_error = "it does not say why"

        def log(self, severity: Any, message: str) -> None:
            is_error = severity in (self.INTERNAL_ERROR, self.ERROR)
            if is_error:
                self.last_error = message
            logger.log(logging.ERROR if is_error else logging.DEBUG, "%s: %s", trt.__name__, message)

    return trt, Log()


def _compute_capability(trt: Any, capability: tuple[int, int]) -> Any:
    known = {name: x for name, x in trt.ComputeCapability.__members__.items() if name.startswith("SM")}
    name = "SM{}{}".format(*capability)
    if name not in known:
        raise ProgramError(f"TensorRT for RTX builds for {', '.join(known)}, not for this GPU's {name}: take the engine compiled")
    return known[name]
