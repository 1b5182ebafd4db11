"""Upsampling of diffusers' convolutional networks, in a form that can be traced for every size.

Knows the one layer it replaces. diffusers' own layer decides by the number of elements and by a quotient of sizes whether to
copy its input first, which a trace with symbolic sizes can only answer by forbidding sizes.
"""

from __future__ import annotations

from collections.abc import Sequence

from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional


class NearestUpsample(nn.Module):
    """Doubles height and width, or reaches a given size, by repeating cells; then the convolution of the layer it replaces."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, cells: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """[batch, channels, height, width] -> [batch, channels', 2 * height, 2 * width], or `size` (height, width)."""
        factor = None if size is not None else 2.0
        grown = functional.interpolate(cells, size=size, scale_factor=factor, mode="nearest")
        result: Tensor = self.conv(grown)
        return result


def replace_upsampling(network: nn.Module) -> None:
    """Swaps every diffusers upsampling layer of `network`, in place. State-dict names and results stay the same."""
    for parent in network.modules():
        for name, layer in parent.named_children():
            if isinstance(layer, Upsample2D):
                if layer.name != "conv" or layer.norm is not None or layer.use_conv_transpose or not layer.interpolate:
                    raise ValueError(f"upsampling layer '{name}': expected nearest-neighbour and one convolution, got {layer}")
                setattr(parent, name, NearestUpsample(layer.conv))
