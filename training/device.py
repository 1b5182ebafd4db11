"""Where training computes: torch's default device, which `python -m training --device` sets once. New tensors and networks are made
there by torch itself; what numpy drew goes there by `tensor`, and what numpy reads comes back by `array`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

_BFLOAT16 = any(bool(torch.cpu.get_capabilities().get(unit)) for unit in ("amx_bf16", "avx512_bf16", "bf16"))
"""Whether the processor multiplies bfloat16 itself; the last is the name of ARM's unit."""


def tensor(values: NDArray[Any]) -> Tensor:
    """Of the same shape and type, on the device."""
    return torch.from_numpy(values).to(torch.get_default_device())


def array(values: Tensor) -> NDArray[Any]:
    """Of the same shape and type, for numpy."""
    return values.cpu().numpy()


def autocast() -> torch.autocast:
    """Products in bfloat16, but for processors that would compute them in steps: there a step takes three times as long."""
    kind = torch.get_default_device().type
    return torch.autocast(kind, torch.bfloat16, enabled=kind != "cpu" or _BFLOAT16)


def attention() -> AbstractContextManager[Any]:
    """PyTorch's fused attention is slow backwards on a CPU."""
    return sdpa_kernel(SDPBackend.MATH) if torch.get_default_device().type == "cpu" else nullcontext()


def load(file: Path) -> Any:
    """What `torch.save` wrote, wherever it was, on the device."""
    return torch.load(file, weights_only=True, map_location=torch.get_default_device())
