"""What a trace records of a network: operators that torch's ONNX exporter has a function for, and none that does nothing.

The exporter asks a traced program to decompose itself, for a handful of operators that it has no function for, and runs it to find
types that are to be promoted. Each dispatches the whole network over symbolic sizes: together they took two thirds of a trace. Here
operators are recorded as others for which there is a function, and casts are added where types are mixed (`ready`); then nothing is
left to do. One that is forgotten fails the export: the exporter finds no function for it, or ONNX Runtime refuses its types.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .errors import ExportError


class Recorded(TorchFunctionMode):
    """While active, calls are recorded by the rules of `_RULES`."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        rule = _RULES.get(func)
        answer = NotImplemented if rule is None else rule(*args, **kwargs)
        return func(*args, **kwargs) if answer is NotImplemented else answer


def ready(program: ExportedProgram) -> ExportedProgram:
    """The program of what was `Recorded`, with nothing left for torch's exporter to do before it translates.

    The exporter would have it decomposed, and run operator by operator to find the types that are to be promoted. Here only those
    operators that mix types are looked at. Raises `ExportError` for one that writes into what it was given: nobody would read that.
    """
    graph = program.graph
    for node in list(graph.nodes):
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        if node.target in _IDLE:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.target._schema.is_mutable:
            raise ExportError(f"{node.target}: expected operators that leave their inputs as they are, for '{node}'")
        elif torch.Tag.pointwise in node.target.tags or node.target in _PROMOTED:
            _promote(node)
    program.run_decompositions = lambda table=None: program
    program.graph_module.modules = lambda: iter(())  # the exporter goes through their operators
    return program


_IDLE = {torch.ops.aten.detach_.default, torch.ops.aten._assert_tensor_metadata.default}
"""Of each `torch.tensor`, where no gradient is, and of a cast that no rule is for."""

_PROMOTED = {
    torch.ops.aten.cat.default,
    torch.ops.aten.stack.default,
    torch.ops.aten.sum.default,
    torch.ops.aten.sum.dim_IntList,
}
"""Operators that compute in the type that they answer in, besides those that work value by value."""


def _promote(node: Node) -> None:
    """Makes the casts of an operator's inputs to the type that it computes in operators of their own, as ONNX has them."""
    values = {each: each.meta["val"] for each in node.all_input_nodes if isinstance(each.meta.get("val"), Tensor)}
    arguments: list[Any] = list(node.args)
    if node.target is torch.ops.aten.where.self:
        values.pop(arguments[0])
    wanted = node.meta["val"].dtype
    if wanted == torch.bool:  # a comparison
        compared = [values.get(each, each) if isinstance(each, Node) else each for each in arguments]
        wanted = torch.result_type(*compared) if len(compared) == 2 else compared[0].dtype
    for given, value in values.items():
        if value.dtype != wanted:
            with node.graph.inserting_before(node):
                cast = node.graph.call_function(torch.ops.aten._to_copy.default, (given,), {"dtype": wanted})
            cast.meta["val"] = value.to(wanted)
            node.replace_input_with(given, cast)


# A rule gives the answer of a call, or `NotImplemented` where the call is to be recorded as it is.
def _to(x: Tensor, *asked: Any, dtype: torch.dtype | None = None, device: Any = None, **others: Any) -> Any:
    """A cast; to the type that a tensor has, nothing."""
    for each in asked:
        if isinstance(each, torch.dtype):
            dtype = each
        elif isinstance(each, torch.device | str):
            device = each
        else:
            return NotImplemented
    if others or torch.device(device or x.device) != x.device:
        return NotImplemented
    return x if dtype in (None, x.dtype) else torch.ops.aten._to_copy.default(x, dtype=dtype)


def _dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """In use, nothing."""
    return NotImplemented if training else x


def _flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Any:
    first, last = start_dim % x.dim(), end_dim % x.dim()
    merged = x.shape[first : last + 1]
    size = math.prod(merged) if _known(merged) else -1
    return x.reshape(*x.shape[:first], size, *x.shape[last + 1 :])


def _unflatten(x: Tensor, dim: int, sizes: Sequence[int]) -> Any:
    axis = dim % x.dim()
    if _known((*sizes, x.shape[axis])):
        rest = x.shape[axis] // -math.prod(sizes)
        sizes = [rest if size == -1 else size for size in sizes]
    return x.reshape(*x.shape[:axis], *sizes, *x.shape[axis + 1 :])


def _chunk(x: Tensor, chunks: int, dim: int = 0) -> Any:
    size = x.shape[dim]
    return torch.split(x, -(-size // chunks), dim) if _known((size,)) else NotImplemented


def _known(sizes: Sequence[int]) -> bool:
    """Whether none of the sizes is symbolic."""
    return all(isinstance(size, int) for size in sizes)


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    if training or running_mean is None or running_var is None:
        return NotImplemented
    use = torch.ops.aten._native_batch_norm_legit_no_training.default
    return use(x, weight, bias, running_mean, running_var, momentum, eps)[0]


def _rms_norm(x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None) -> Any:
    axes = [x.dim() - 1 - i for i in range(len(normalized_shape))]
    normal = x * torch.rsqrt(x.pow(2).mean(axes, keepdim=True) + (torch.finfo(x.dtype).eps if eps is None else eps))
    return normal if weight is None else normal * weight


_RULES: Mapping[Callable[..., Any], Callable[..., Any]] = {
    Tensor.to: _to,
    Tensor.float: lambda x, **others: _to(x, torch.float32, **others),
    Tensor.half: lambda x, **others: _to(x, torch.float16, **others),
    functional.dropout: _dropout,
    Tensor.flatten: _flatten,
    torch.flatten: _flatten,
    Tensor.unflatten: _unflatten,
    Tensor.chunk: _chunk,
    torch.chunk: _chunk,
    Tensor.__and__: torch.logical_and,
    functional.batch_norm: _batch_norm,
    functional.rms_norm: _rms_norm,
}
