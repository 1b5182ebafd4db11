"""Weights that are not in memory: a large parameter stands for its values, which are fetched where they are used and not kept.

Only parameters of `LARGE` values and more are deferred; the rest is small together and stays ordinary. A deferred parameter holds
not-a-number, so values that were used without being fetched show in every result. While `on_demand` is active a module's own
deferred parameters are there for as long as its forward runs: a network of any size runs in the memory of its largest layer.
Knows torch's modules; nothing of where values come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

LARGE = 1 << 20
"""Values from which on a parameter is deferred. Far above what constant folding and deduplication of a graph look at."""

Fetch = Callable[[], Tensor]
"""Makes or reads a tensor's values, FP32 or narrower."""

_FETCH = "_fetch_deferred"


def is_large(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.numel() >= LARGE


def placeholder(shape: torch.Size, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor of any size in the memory of one value, which is not a number."""
    return torch.full((1,), torch.nan, dtype=dtype).expand(shape)


def defer(parameter: Tensor, fetch: Fetch) -> None:
    """Makes `parameter`, which holds a placeholder, stand for what `fetch` returns."""
    setattr(parameter, _FETCH, fetch)


def is_deferred(tensor: Tensor) -> bool:
    return hasattr(tensor, _FETCH)


def fetch_of(tensor: Tensor) -> Fetch:
    """What makes a deferred tensor's values."""
    fetch: Fetch = getattr(tensor, _FETCH)
    return fetch


def values(tensor: Tensor) -> Tensor:
    """The tensor's values in its dtype, fetched if they are deferred."""
    return fetch_of(tensor)().to(tensor.dtype) if is_deferred(tensor) else tensor.detach()


def cast(tensor: Tensor, dtype: torch.dtype) -> None:
    """Changes a parameter's or buffer's dtype, in place; of a deferred one, that of the values to come."""
    tensor.data = placeholder(tensor.shape, dtype) if is_deferred(tensor) else tensor.data.to(dtype)


def fetch_all(module: nn.Module) -> None:
    """Puts all deferred parameters of `module` into memory, for good."""
    for parameter in deferred_parameters(module).values():
        parameter.data = values(parameter)
        delattr(parameter, _FETCH)


def deferred_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Name, as torch exports it, -> every deferred parameter of `module`."""
    return {name: parameter for name, parameter in module.named_parameters() if is_deferred(parameter)}


def fill(module: nn.Module, tensors: Mapping[str, Fetch], defer_large: bool) -> None:
    """Gives a module on the meta device the tensors that are named, in place; large parameters are deferred if so wished."""
    large = {name for name, parameter in module.named_parameters() if defer_large and name in tensors and is_large(parameter)}
    shapes = module.state_dict()
    made = {name: placeholder(shapes[name].shape) if name in large else fetch() for name, fetch in tensors.items()}
    module.load_state_dict(made, strict=False, assign=True)  # names and shapes are the caller's affair
    for name, parameter in module.named_parameters():
        if name in large:
            defer(parameter, tensors[name])


@contextmanager
def on_demand() -> Iterator[None]:
    """While active, running modules find their own deferred parameters in memory. Not meant to be active in a trace."""
    waiting: dict[int, list[tuple[nn.Parameter, Tensor]]] = {}

    def fetch(module: nn.Module, _inputs: Any) -> None:
        own = [parameter for parameter in module.parameters(recurse=False) if is_deferred(parameter)]
        if own:
            waiting[id(module)] = [(parameter, parameter.data) for parameter in own]
            for parameter in own:
                parameter.data = values(parameter)

    def release(module: nn.Module, _inputs: Any, _outputs: Any) -> None:
        for parameter, held in waiting.pop(id(module), []):
            parameter.data = held

    hooks = (register_module_forward_pre_hook(fetch), register_module_forward_hook(release, always_call=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
