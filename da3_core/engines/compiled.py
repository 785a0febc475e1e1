"""Programs that Inductor compiles: ahead of time into packages on disk, so that a second start only loads them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from da3_core.engines.cache import ArtifactCache
from da3_core.engines.export import FOLDED_PREFIX, export
from da3_core.engines.programs import Program, ProgramError

FOLDED = "folded.safetensors"  # constants that are no weights of the model
OPTIONS: Mapping[str, Any] = {"conv_1x1_as_mm": True, "epilogue_fusion": True, "max_autotune_gemm": False}
LOAD = "import sys, torch; torch._inductor.aoti_load_package(sys.argv[1], run_single_threaded=True, device_index=int(sys.argv[2]))"
LOAD_TIMEOUT_S = 120
ATTENTION = (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)


class AheadOfTime:
    """Packages of AOTInductor: code only, which reads the model's own weights.

    Building needs a C++ compiler, and on a GPU the CUDA headers; loading does not.
    """

    name = "compiled"

    def __init__(self, cache: ArtifactCache, device: torch.device, options: Mapping[str, Any] = OPTIONS) -> None:
        self._cache, self._device, self._options = cache, device, dict(options)
        self._index = -1 if device.index is None else device.index
        here = zlib.crc32(f"{torch.__version__} {device_name(device)}".encode())
        self._refusal = cache.folder / f"packages-refused-{here:08x}.txt"

    def build(self, part: nn.Module, inputs: Sequence[Tensor]) -> Program:
        """See `Backend`."""
        if self._refusal.is_file():
            raise ProgramError(f"{self._refusal.read_text()}; delete {self._refusal} to try again")
        made_for = {"device": device_name(self._device), "options": repr(sorted(self._options.items()))}
        path = self._cache.get(part, inputs, "part.pt2", made_for, lambda path: self._write(part, inputs, path))
        package = torch._inductor.aoti_load_package(str(path), run_single_threaded=True, device_index=self._index)
        folded = load_file(path.with_name(FOLDED), device=str(self._device))
        tensors = {**folded, **dict(part.named_parameters()), **dict(part.named_buffers())}
        constants = {name: tensors[name].detach() for name in package.get_constant_fqns()}
        package.load_constants(constants, check_full_update=True, user_managed=True)

        def run(*inputs: Tensor, _alive: object = constants) -> tuple[Tensor, ...]:
            return tuple(package(*inputs))

        return run

    def _write(self, part: nn.Module, inputs: Sequence[Tensor], path: Path) -> None:
        options = {**self._options, "aot_inductor.package_constants_in_so": False}
        try:
            with fast_attention(self._device):
                program = export(part, [x.to(self._device) for x in inputs])
                torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)
        except Exception as error:  # whatever the compilers throw
            raise ProgramError(f"AOTInductor failed ({type(error).__name__}: {error})") from error
        self._check(path)
        folded = {name: x.contiguous() for name, x in program.state_dict.items() if name.startswith(FOLDED_PREFIX)}
        save_file(folded, path.with_name(FOLDED))

    def _check(self, path: Path) -> None:
        """Loads a new package in a process of its own: one that ends its process must not end a robot's. Remembered for this machine."""
        command = [sys.executable, "-c", LOAD, str(path), str(self._index)]
        try:
            subprocess.run(command, capture_output=True, timeout=LOAD_TIMEOUT_S, check=True)  # noqa: S603  our own words
        except subprocess.SubprocessError as error:
            reason = f"a process that loads what AOTInductor of PyTorch {torch.__version__} built ends with an error ({error})"
            self._refusal.write_text(reason)
            raise ProgramError(reason) from error


class JustInTime:
    """torch.compile, where packages cannot be built."""

    name = "compiled at start"

    def __init__(self, cache: ArtifactCache, device: torch.device, options: Mapping[str, Any] = OPTIONS) -> None:
        self._folder, self._device, self._options = cache.folder.parent / "inductor", device, dict(options)

    def build(self, part: nn.Module, inputs: Sequence[Tensor]) -> Program:
        """See `Backend`."""
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(self._folder))  # the default is lost with /tmp
        on_device = [x.to(self._device) for x in inputs]
        try:
            with fast_attention(self._device), torch.no_grad():
                compiled: Program = torch.compile(export(part, on_device).module(), fullgraph=True, dynamic=False, options=self._options)
                compiled(*on_device)
        except Exception as error:  # whatever the compilers throw
            raise ProgramError(f"torch.compile failed ({type(error).__name__}: {error})") from error

        @torch.no_grad()  # as it was compiled: anything else would compile it again
        def run(*inputs: Tensor) -> tuple[Tensor, ...]:
            return compiled(*inputs)

        return run


@contextlib.contextmanager
def fast_attention(device: torch.device) -> Iterator[None]:
    """cuDNN's attention where it can, it is the faster one on Hopper; what is traced or recorded in this context keeps the choice."""
    if device.type != "cuda":
        yield
        return
    with sdpa_kernel(list(ATTENTION), set_priority=True):
        yield


def device_name(device: torch.device) -> str:
    """What a compiled artifact is bound to."""
    if device.type != "cuda":
        return device.type
    return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
