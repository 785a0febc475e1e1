"""The gate that every program of a foreign compiler passes before it runs: it has to give what the network in float32 gives."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from da3_core.engines.backend import Backend, Program, ProgramError, refused_where
from da3_core.engines.cache import ArtifactCache

# Largest relative difference, in the 2-norm, of an output. Ten times what the precision itself costs, or more: see docs/tensorrt.md.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
FAINT = 0.01  # root mean square below which an output's difference is relative to this: where there is no sky, its probability is zero

logger = logging.getLogger(__name__)


class Checked:
    """Another backend's programs, refused where they are not right.

    What a part gives in float32, in PyTorch, for the inputs that the first program was built with lies beside the programs. Every program
    is run on these inputs when it is built, and again whenever it is loaded.
    """

    def __init__(self, backend: Backend, cache: ArtifactCache) -> None:
        self._backend, self._cache = backend, cache
        self.name = backend.name

    def build(self, part: nn.Module, inputs: Sequence[Tensor]) -> Program:
        """See `Backend`."""
        program, made_for = self._backend.build(part, inputs), {"reference": "float32"}
        with refused_where("it cannot be checked"):  # the program runs for the first time
            path = self._cache.get(part, inputs, "reference.safetensors", made_for, lambda path: write_reference(part, inputs, path))
            error, output = worst_error(program, path)
        tolerance = TOLERANCE[next(part.parameters()).dtype]
        if not error <= tolerance:  # also refuses NaN
            raise ProgramError(
                f"output {output} is {error:.1e} off what PyTorch gives in float32, and {tolerance:.0e} is allowed: take precision fp32, "
                "or another version of the compiler (TensorRT 10.3, of JetPack 6.2, is known for wrong numbers)"
            )
        logger.info("%s: %s is within %.1e of PyTorch in float32", self.name, type(part).__name__, error)
        return program


def write_reference(part: nn.Module, inputs: Sequence[Tensor], path: Path) -> None:
    """These inputs, and what the part gives for them in float32."""
    exact = copy.deepcopy(part).float()
    device = next(part.parameters()).device
    on_device = [x.to(device) for x in inputs]
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        outputs = exact(*(x.float() if x.is_floating_point() else x for x in on_device))
    named = {f"input_{i}": x for i, x in enumerate(on_device)} | {f"output_{i}": y for i, y in enumerate(outputs)}
    save_file({name: x.cpu().clone(memory_format=torch.contiguous_format) for name, x in named.items()}, path)


def worst_error(program: Program, reference: Path) -> tuple[float, int]:
    """The largest relative difference, in the 2-norm, of an output from the stored one or from `FAINT`, and which output that is."""
    tensors = load_file(reference)
    inputs, expected = (
        [tensors[f"{kind}_{i}"] for i in range(sum(name.startswith(kind) for name in tensors))] for kind in ("input", "output")
    )
    with torch.no_grad():
        outputs = [y.float().cpu() for y in program(*inputs)]
    errors = [float((y - z).norm() / z.norm().clamp(min=FAINT * z.numel() ** 0.5)) for y, z in zip(outputs, expected, strict=True)]
    return max((math.inf if math.isnan(error) else error, i) for i, error in enumerate(errors))
