"""Parts of a network as graphs of fixed shapes, with everything that follows from weights and shapes computed beforehand."""

from __future__ import annotations

import contextlib
import logging
import operator
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

if TYPE_CHECKING:
    from torch.export import ExportedProgram

OPSET = 20
FOLDED_PREFIX = "folded_"
KEPT_IN_FLOAT32 = (torch.ops.aten.layer_norm.default,)  # of a half network, beside what networks compute in float32 of their own accord
LARGEST_SINGLE_FILE = 1_500_000_000  # bytes of weights; protobuf ends at 2 GB


def export(part: nn.Module, inputs: Sequence[Tensor], in_float32: Collection[OpOverload] = ()) -> ExportedProgram:
    """The graph of a part for inputs like these. Resampled position grids, rotary tables and embeddings are constants in it.

    in_float32: operations that compute in float32 and give what they gave before, for compilers that would take the types literally.
    """
    import torch.export

    with torch.no_grad():
        graph = torch.export.export(part, tuple(inputs), strict=False).module()
        fold_constants(graph)
        for node in graph.graph.nodes:
            if node.target in in_float32:
                node.target = _in_float32(node.target)
        graph.recompile()
        return torch.export.export(graph, tuple(inputs), strict=False)


def _in_float32(operation: OpOverload) -> Callable[..., Tensor]:
    def float32_operation(x: Tensor, *others: Any) -> Tensor:
        y: Tensor = operation(x.float(), *(z.float() if isinstance(z, Tensor) else z for z in others))
        return y.to(x.dtype)

    return float32_operation


def fold_constants(module: GraphModule) -> None:
    """Computes, in place, every operation that depends on no input."""
    constants: dict[Node, Any] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            constants[node] = operator.attrgetter(node.target)(module)
        elif node.op == "call_function" and all(x in constants for x in node.all_input_nodes):
            args, kwargs = torch.fx.map_arg((node.args, node.kwargs), constants.__getitem__)
            constants[node] = node.target(*args, **kwargs)
    for node in [n for n in constants if n.op != "get_attr" and isinstance(constants[n], Tensor)]:
        if all(user in constants for user in node.users):
            continue
        name = FOLDED_PREFIX + node.name
        module.register_buffer(name, constants[node])
        with module.graph.inserting_before(node):
            node.replace_all_uses_with(module.graph.get_attr(name))
    for node in reversed(constants):
        if not node.users:
            module.graph.erase_node(node)
    module.recompile()


def write_onnx(part: nn.Module, inputs: Sequence[Tensor], path: Path, opset: int = OPSET, strongly_typed: bool = False) -> None:
    """An ONNX graph of a part. Large weights lie in a second file beside it.

    strongly_typed: for runtimes that compute in the types that the graph says and convert no operation that they do not know: types are
    spelled out, and what follows from shapes is worked out beforehand, which takes half as long again.
    """
    program = export(part, inputs, in_float32=KEPT_IN_FLOAT32 if strongly_typed else ())
    weights = sum(x.numel() * x.element_size() for x in part.parameters())
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            program,
            (),
            path,
            dynamo=True,
            opset_version=opset,
            external_data=weights > LARGEST_SINGLE_FILE,
            optimize=strongly_typed,  # rewriting takes half of the time; onnxruntime does its own
            verbose=False,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter speaks of torchvision's absence and of its own deprecations."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)
