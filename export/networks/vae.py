"""The picture half of a diffusers VAE: latents -> RGB, and its form that fits half precision.

Knows diffusers' `AutoencoderKL`, which all families share; nothing of what made the latents.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from .resampling import NearestUpsample, replace_upsampling

_HEADROOM = 16.0
"""How much larger than the measured activations those of other pictures may be."""


class VAEDecoder(nn.Module):
    """`post_quant_conv` and `decoder` of a VAE, between the denoiser's latents and pictures in [0, 1]."""

    def __init__(self, vae: Any, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.post_quant_conv: nn.Module = vae.post_quant_conv if config.get("use_post_quant_conv", True) else nn.Identity()
        self.decoder: nn.Module = vae.decoder
        self.scaling_factor = float(config["scaling_factor"])
        self.shift_factor = float(config.get("shift_factor") or 0.0)
        replace_upsampling(self.decoder)
        self.notes: dict[str, object] = {}

    def forward(self, latents: Tensor) -> tuple[Tensor]:
        """Latents [images, channels, height, width] as the denoiser sees them -> RGB [images, 3, 8 * height, 8 * width]."""
        decoded: Tensor = self.decoder(self.post_quant_conv(latents / self.scaling_factor + self.shift_factor))
        return ((decoded.float() / 2 + 0.5).clamp(0, 1),)


def fit_half_range(module: nn.Module, examples: list[tuple[Tensor, ...]]) -> None:
    """Rescales a decoder in place, without changing what it computes, so that its activations fit half precision.

    SDXL's VAE has activations beyond 65504, the largest half. All of them lie between a convolution and a group norm, and a norm
    forgets the scale of its input but for its epsilon. So every convolution's output is multiplied by one power of two, s, and
    every norm's epsilon by s squared: exact in real numbers, and nearly so in floating point. `examples`: inputs that show how
    large the activations become.
    """
    if not isinstance(module, VAEDecoder):
        raise TypeError(f"module: expected a VAEDecoder, got {type(module).__name__}")
    largest = largest_activation(module.decoder, module, examples)
    needed = largest * _HEADROOM / torch.finfo(torch.float16).max
    scale = 2.0 ** -max(0, math.ceil(math.log2(needed))) if needed > 0 else 1.0
    shrink_activations(module.decoder, scale)
    module.notes.update(largest_activation=largest, activation_scale=scale)


def largest_activation(watched: nn.Module, module: nn.Module, examples: list[tuple[Tensor, ...]]) -> float:
    """Largest absolute value that any layer inside `watched` gives while `module` runs on `examples`."""
    largest = 0.0

    def measure(_layer: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, float(output.abs().amax()))

    hooks = [layer.register_forward_hook(measure) for layer in watched.modules()]
    try:
        with torch.no_grad():
            for example in examples:
                module(*example)
    finally:
        for hook in hooks:
            hook.remove()
    return largest


def shrink_activations(decoder: nn.Module, scale: float) -> None:
    """Multiplies every activation between the norms of a VAE decoder by `scale`, in place; its output stays what it was.

    The residual stream is carried on from block to block, so what enters it is scaled once: convolutions that read a normalised
    tensor scale weight and bias, those that read the stream itself (shortcut, upsampling) only the bias.
    """
    for layer in decoder.modules():
        if isinstance(layer, nn.GroupNorm):
            layer.eps *= scale**2
        elif isinstance(layer, ResnetBlock2D):
            _scale(layer.conv1, scale)
            _scale(layer.conv2, scale)
            if layer.conv_shortcut is not None:
                _scale(layer.conv_shortcut, scale, bias_only=True)
        elif isinstance(layer, Attention):
            _scale(layer.to_out[0], scale)
        elif isinstance(layer, NearestUpsample):
            _scale(layer.conv, scale, bias_only=True)
    _scale(decoder.conv_in, scale)


def _scale(layer: Any, factor: float, bias_only: bool = False) -> None:
    with torch.no_grad():
        if not bias_only:
            layer.weight.mul_(factor)
        if layer.bias is not None:
            layer.bias.mul_(factor)
