"""Both halves of a diffusers VAE: RGB -> latents -> RGB, and their forms that fit half precision.

Knows diffusers' `AutoencoderKL`, which all families share; nothing of what the latents are for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from .resampling import NearestUpsample, replace_upsampling

_HEADROOM = 16.0
"""How much larger than the measured activations those of other pictures may be."""


_LOG_VARIANCE = (-30.0, 20.0)
"""Range that `AutoencoderKL` cuts the logarithm of the variance to."""


class VAEEncoder(nn.Module):
    """`encoder` and `quant_conv` of a VAE, between pictures in [0, 1] and the denoiser's latents."""

    def __init__(self, vae: Any, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.encoder: nn.Module = vae.encoder
        self.quant_conv: nn.Module = vae.quant_conv if config.get("use_quant_conv", True) else nn.Identity()
        self.scaling_factor, self.shift_factor = _scaling(config)
        self.notes: dict[str, object] = {}

    @property
    def stream(self) -> nn.Module:
        """What carries the residual stream."""
        return self.encoder

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """RGB [images, 3, 8 * height, 8 * width] in [0, 1] -> mean and standard deviation of its latents as the denoiser sees them,
        [images, channels, height, width] each."""
        moments: Tensor = self.quant_conv(self.encoder(picture * 2 - 1)).float()
        mean, log_variance = moments.chunk(2, dim=1)
        std = torch.exp(0.5 * log_variance.clamp(*_LOG_VARIANCE))
        return (mean - self.shift_factor) * self.scaling_factor, std * self.scaling_factor


class VAEDecoder(nn.Module):
    """`post_quant_conv` and `decoder` of a VAE, between the denoiser's latents and pictures in [0, 1]."""

    def __init__(self, vae: Any, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.post_quant_conv: nn.Module = vae.post_quant_conv if config.get("use_post_quant_conv", True) else nn.Identity()
        self.decoder: nn.Module = vae.decoder
        self.scaling_factor, self.shift_factor = _scaling(config)
        replace_upsampling(self.decoder)
        self.notes: dict[str, object] = {}

    @property
    def stream(self) -> nn.Module:
        """What carries the residual stream."""
        return self.decoder

    def forward(self, latents: Tensor) -> tuple[Tensor]:
        """Latents [images, channels, height, width] as the denoiser sees them -> RGB [images, 3, 8 * height, 8 * width]."""
        decoded: Tensor = self.decoder(self.post_quant_conv(latents / self.scaling_factor + self.shift_factor))
        return ((decoded.float() / 2 + 0.5).clamp(0, 1),)


def _scaling(config: Mapping[str, Any]) -> tuple[float, float]:
    """Scale and shift between the VAE's latents and the denoiser's: (latents - shift) * scale."""
    return float(config["scaling_factor"]), float(config.get("shift_factor") or 0.0)


def fit_half_range(module: nn.Module, examples: list[tuple[Tensor, ...]]) -> None:
    """Rescales half of a VAE in place, without changing what it computes, so that its activations fit half precision.

    SDXL's VAE has activations beyond 65504, the largest half. All of them lie between a convolution and a group norm, and a norm
    forgets the scale of its input but for its epsilon. So every convolution's output is multiplied by one power of two, s, and
    every norm's epsilon by s squared: exact in real numbers, and nearly so in floating point. `examples`: inputs that show how
    large the activations become.
    """
    if not isinstance(module, VAEDecoder | VAEEncoder):
        raise TypeError(f"module: expected a VAEDecoder or a VAEEncoder, got {type(module).__name__}")
    largest = largest_activation(module.stream, module, examples)
    needed = largest * _HEADROOM / torch.finfo(torch.float16).max
    scale = 2.0 ** -max(0, math.ceil(math.log2(needed))) if needed > 0 else 1.0
    shrink_activations(module.stream, scale)
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


def shrink_activations(stream: Any, scale: float) -> None:
    """Multiplies every activation between the norms of a VAE's encoder or decoder by `scale`, in place; its output stays what it was.

    The residual stream is carried on from block to block, so what enters it is scaled once: convolutions that read a normalised
    tensor scale weight and bias, those that read the stream itself (shortcut, resampling) only the bias.
    """
    for layer in stream.modules():
        if isinstance(layer, nn.GroupNorm):
            layer.eps *= scale**2
        elif isinstance(layer, ResnetBlock2D):
            _scale(layer.conv1, scale)
            _scale(layer.conv2, scale)
            if layer.conv_shortcut is not None:
                _scale(layer.conv_shortcut, scale, bias_only=True)
        elif isinstance(layer, Attention):
            _scale(layer.to_out[0], scale)
        elif isinstance(layer, NearestUpsample | Downsample2D):
            _scale(layer.conv, scale, bias_only=True)
    _scale(stream.conv_in, scale)


def _scale(layer: Any, factor: float, bias_only: bool = False) -> None:
    with torch.no_grad():
        if not bias_only:
            layer.weight.mul_(factor)
        if layer.bias is not None:
            layer.bias.mul_(factor)
