"""Half precision, written into the network: weights and products in FP16, islands of FP32 where FP16 would break.

TensorRT 11 has no precision flags: what the graph says is what runs. So a module is converted (`to_half`) before it is traced.
Knows layers and functions of torch, not networks; inputs and outputs of a component stay FP32.
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ..checkpoint.deferred import cast

BYTES = {"fp32": 4, "fp16": 2, "int8w": 1, "int4w": 1, "int8": 1, "fp8": 1}
"""Bytes of most weights in a file, rounded up."""

FP32_LAYERS: tuple[type[nn.Module], ...] = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.RMSNorm)
"""Layers whose parameters stay FP32: they divide by statistics of their input."""

FP32_FUNCTIONS: frozenset[Callable[..., Any]] = frozenset({
    functional.layer_norm, functional.group_norm, functional.batch_norm, functional.rms_norm, functional.normalize,
    functional.softmax, torch.softmax, Tensor.softmax, torch.norm, Tensor.norm, torch.linalg.vector_norm, functional.grid_sample,
})  # fmt: skip
"""Functions that are computed in FP32 and answer in the type that they were asked in: sums of squares, sums of exponentials, and
sampling between cells, whose weights are differences of near positions."""

PRODUCTS: frozenset[Callable[..., Any]] = frozenset({
    functional.linear, functional.conv2d, torch.matmul, Tensor.matmul, torch.bmm,
})  # fmt: skip
"""Functions of (input, weight or second factor, ...) that run in the type of the second, whatever the first is."""


def to_half(module: nn.Module, keep_fp32: Iterable[str] = ()) -> None:
    """Makes `module` compute in FP16, in place: FP32 tensors go in and come out, islands stay FP32.

    `keep_fp32`: starts of the names of tensors that stay FP32 besides those of `FP32_LAYERS`; `*` in one stands for any text. Not
    weights of products: RTX 20 has no FP32 matrix product. Tensors are converted one by one, so memory never holds both forms of
    the network.
    """
    keep = [f"{start}*" for start in keep_fp32]
    for layer_name, layer in module.named_modules():
        if isinstance(layer, FP32_LAYERS):
            continue
        for name, tensor in (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)):
            full_name = f"{layer_name}.{name}" if layer_name else name
            if tensor.is_floating_point() and not any(fnmatch.fnmatchcase(full_name, pattern) for pattern in keep):
                cast(tensor, torch.float16)
    compute = module.forward

    @functools.wraps(compute)
    def forward(*inputs: Tensor) -> tuple[Tensor, ...]:
        with HalfArithmetic():
            outputs = compute(*inputs)
        return tuple(output.float() for output in outputs)

    module.forward = forward


class HalfArithmetic(TorchFunctionMode):
    """While active, products run in the type of their weight and `FP32_FUNCTIONS` in FP32; the casts land in a traced graph."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in PRODUCTS:
            return _product(func, *args, **kwargs)
        if func is functional.scaled_dot_product_attention:
            return attention(*args, **kwargs)
        if func in FP32_FUNCTIONS:
            return _in_fp32(func, args, kwargs)
        return func(*args, **kwargs)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """torch's scaled dot product attention, spelt out: products in the inputs' type, softmax in FP32.

    [batch, heads, tokens, width] each. Query and key each take the root of the scale, which keeps half-precision scores in range
    and is the form that TensorRT recognises as attention. No dropout, no causal flag, no grouped heads: no exported network
    uses them.
    """
    if dropout_p or is_causal or enable_gqa:
        raise NotImplementedError(
            "attention: expected dropout_p 0, is_causal False and enable_gqa False,"
            f" got {dropout_p}, {is_causal} and {enable_gqa}"
        )
    root = (query.shape[-1] ** -0.5 if scale is None else scale) ** 0.5
    scores: Tensor = _product(torch.matmul, query * root, (key * root).transpose(-1, -2))
    if attn_mask is not None:
        scores = scores + attn_mask
    attended: Tensor = _product(torch.matmul, torch.softmax(scores.float(), dim=-1), value)
    return attended


def _product(func: Callable[..., Any], x: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Any:
    """A product in the type of `weight`. A trace records just that. Run directly, it is what a GPU's FP16 units do: factors in
    FP16, sums in FP32, one rounding at the end, which on a CPU is also many times faster than its own FP16 kernels."""
    x = x.to(weight.dtype)
    if torch.compiler.is_exporting() or weight.dtype == torch.float32:
        return func(x, weight, *args, **kwargs)
    wide, wide_kwargs = _widened((x, weight, *args), kwargs)
    return func(*wide, **wide_kwargs).to(weight.dtype)


def _in_fp32(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    wide, wide_kwargs = _widened(args, kwargs)
    return func(*wide, **wide_kwargs).to(args[0].dtype)


def _widened(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    def widen(value: Any) -> Any:
        return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value

    return [widen(arg) for arg in args], {name: widen(value) for name, value in kwargs.items()}
