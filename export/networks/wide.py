"""Products in half precision whose results leave half's range.

An FP32 matrix product would do as well, but TensorRT for RTX has none for RTX 20 (SM75), and its weight takes twice the memory.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

HEADROOM = 64.0
"""How far beyond half's range results may go, and inputs."""


class WideLinear(nn.Module):
    """A linear layer whose result is FP32. It and its input may exceed half's range by `headroom`, a power of two."""

    def __init__(self, linear: nn.Linear, headroom: float = 1.0) -> None:
        super().__init__()
        self.weight, self.bias, self.headroom = linear.weight, linear.bias, headroom

    def forward(self, tokens: Tensor) -> Tensor:
        product = functional.linear(tokens / self.headroom, self.weight).float() * self.headroom
        return product if self.bias is None else product + self.bias
