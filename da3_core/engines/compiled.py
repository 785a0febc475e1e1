"""Programs that Inductor compiles: kept on disk, so that a second start only loads them.

Inductor is imported where it is used: it takes seconds, which no other engine needs.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import platform
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from da3_core.engines.backend import Program, refused_where
from da3_core.engines.cache import ArtifactCache
from da3_core.engines.export import export
from da3_core.engines.kernels import KERNELS, ON_HOPPER, using

if TYPE_CHECKING:
    from torch.export import ExportedProgram

HOPPER = (9, 0)
PACKAGE = "part.inductor"
CONSTANTS = "constants.pt"  # tensors that are none of the model's
ARGUMENTS = "arguments.json"  # names in the order of a call
OPTIONS: Mapping[str, Any] = {"conv_1x1_as_mm": True, "epilogue_fusion": True, "max_autotune_gemm": False}
ATTENTION = (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)


class Packages:
    """Inductor's code and kernels, one file a part, which takes the model's own weights as inputs: loading traces and compiles nothing.

    Building needs Triton on a GPU, and a C++ compiler on a CPU. PyTorch 2.10 is the first that has what this is made of.
    """

    name = "compiled"

    def __init__(
        self, cache: ArtifactCache, device: torch.device, options: Mapping[str, Any] = OPTIONS, kernels: Collection[str] | None = None
    ) -> None:
        """kernels: of `kernels.py`, by default those that suit the device, none on a CPU."""
        self._cache, self._device, self._options = cache, device, dict(options)
        self._kernels = _kernels_of(device) if kernels is None else kernels

    def build(self, part: nn.Module, inputs: Sequence[Tensor]) -> Program:
        """See `Backend`."""
        keep_inductors_cache(self._cache)
        path = self._cache.get(part, inputs, PACKAGE, self._made_for, lambda path: self._write(part, inputs, path))
        with refused_where("what Inductor built does not run"):
            return self._program(part, path, inputs)

    def is_built(self, part: nn.Module, inputs: Sequence[Tensor]) -> bool:
        """See `SlowToLoad`."""
        return self._cache.has(part, inputs, PACKAGE, self._made_for)

    @property
    def _made_for(self) -> dict[str, str]:
        return {
            "device": device_name(self._device),
            "options": repr(sorted(self._options.items())),
            "kernels": ", ".join(sorted(self._kernels)),
        }

    def _program(self, part: nn.Module, path: Path, inputs: Sequence[Tensor]) -> Program:
        code = _load(path)
        arguments = self._arguments(part, path)

        @torch.no_grad()
        def run(*inputs: Tensor) -> tuple[Tensor, ...]:
            return tuple(code(*_filled(arguments, inputs)))

        run(*(x.to(self._device) for x in inputs))
        return run

    def _arguments(self, part: nn.Module, path: Path) -> list[Tensor | None]:
        """What the code is called with: weights, constants, and None for every input, see `_filled`."""
        constants = torch.load(path.with_name(CONSTANTS), map_location=self._device, weights_only=True)
        tensors = {**constants, **_tensors(part)}
        names: list[str | None] = json.loads(path.with_name(ARGUMENTS).read_text())
        return _named(names, tensors)

    def _write(self, part: nn.Module, inputs: Sequence[Tensor], path: Path) -> None:
        import torch._inductor

        on_device = [x.to(self._device) for x in inputs]
        with refused_where("Inductor failed"), fast_attention(self._device), using(part, self._kernels), torch.no_grad():
            program = export(part, on_device)
            names = _argument_names(program)
            tensors = {**program.constants, **program.state_dict}
            code: Any = torch._inductor.standalone_compile(
                program.graph_module,
                [*_filled(_named(names, tensors), on_device)],
                dynamic_shapes="from_example_inputs",
                options={"config_patches": self._options},
                aot=True,
            )
            path.write_bytes(code.serialize())  # `save` adds a checksum of all of PyTorch's code, which takes half a second to work out
        constants = {name: tensors[name].detach() for name in names if name is not None and name not in _tensors(part)}
        torch.save(constants, path.with_name(CONSTANTS))  # with their strides, which code has built in
        path.with_name(ARGUMENTS).write_text(json.dumps(names))


def _load(path: Path) -> Callable[..., Sequence[Tensor]]:
    """Inductor's imports and its package leave millions of objects and hardly any garbage: collecting it took a third of the time."""
    with collecting_no_garbage():
        import torch._inductor.config
        from torch._inductor.standalone_compile import AOTCompiledArtifact

        with torch._inductor.config.patch(compile_threads=1):  # a pool of processes takes longer to start than kernels to load
            return AOTCompiledArtifact.deserialize(path.read_bytes())


class JustInTime:
    """torch.compile, where packages cannot be built."""

    name = "compiled at start"

    def __init__(self, cache: ArtifactCache, device: torch.device, options: Mapping[str, Any] = OPTIONS) -> None:
        self._cache, self._device, self._options = cache, device, dict(options)

    def build(self, part: nn.Module, inputs: Sequence[Tensor]) -> Program:
        """See `Backend`."""
        keep_inductors_cache(self._cache)
        on_device = [x.to(self._device) for x in inputs]
        # Where this is needed PyTorch may be too old for what the kernels of Hopper are made of.
        kernels = KERNELS if self._device.type == "cuda" else ()
        with refused_where("torch.compile failed"), fast_attention(self._device), using(part, kernels), torch.no_grad():
            compiled: Program = torch.compile(export(part, on_device).module(), fullgraph=True, dynamic=False, options=self._options)
            compiled(*on_device)

        @torch.no_grad()  # as it was compiled: anything else would compile it again
        def run(*inputs: Tensor) -> tuple[Tensor, ...]:
            return compiled(*inputs)

        return run


def keep_inductors_cache(cache: ArtifactCache) -> None:
    """Beside ours, where nobody said otherwise: the default is lost with /tmp. Inductor settles on a folder when it is imported, and takes
    from it what was compiled to other instructions: those of one CPU have a folder.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache.folder.parent / "inductor" / _instructions()))


@contextlib.contextmanager
def collecting_no_garbage() -> Iterator[None]:
    """Where Python's collector is on, it rests meanwhile."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextlib.contextmanager
def fast_attention(device: torch.device) -> Iterator[None]:
    """cuDNN's attention where it can, the fastest of PyTorch's on Hopper; what is traced or recorded in this context keeps the choice."""
    if device.type != "cuda":
        yield
        return
    with sdpa_kernel(list(ATTENTION), set_priority=True):
        yield


def _kernels_of(device: torch.device) -> Collection[str]:
    if device.type != "cuda":
        return ()
    return ON_HOPPER if torch.cuda.get_device_capability(device) == HOPPER else KERNELS


def device_name(device: torch.device) -> str:
    """What a compiled artifact is bound to."""
    if device.type == "cpu":
        return _instructions()
    if device.type != "cuda":
        return device.type
    index = torch.cuda.current_device() if device.index is None else device.index
    return f"{torch.cuda.get_device_name(device)} as device {index}, CUDA {torch.version.cuda}"


def _instructions() -> str:
    """What code for the CPU is bound to; part of a path."""
    return f"{platform.machine()}-{torch.backends.cpu.get_cpu_capability()}"


def _argument_names(program: ExportedProgram) -> list[str | None]:
    """Names of the tensors that the graph takes, in order; None for an input."""
    from torch.export.graph_signature import InputKind

    return [None if spec.kind == InputKind.USER_INPUT else spec.target for spec in program.graph_signature.input_specs]


def _named(names: Sequence[str | None], tensors: Mapping[str, Tensor]) -> list[Tensor | None]:
    """Tensors by their names, in order; None for an input."""
    return [None if name is None else tensors[name].detach() for name in names]


def _filled(arguments: Sequence[Tensor | None], inputs: Iterable[Tensor]) -> list[Tensor]:
    """What the code is called with: the inputs, in order, in place of each None."""
    given = iter(inputs)
    return [next(given) if x is None else x for x in arguments]


def _tensors(part: nn.Module) -> dict[str, Tensor]:
    return {**dict(part.named_parameters(remove_duplicate=False)), **dict(part.named_buffers(remove_duplicate=False))}
