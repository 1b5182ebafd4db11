"""LoRAs of FLUX: its transformer in every spelling, and its CLIP."""

import pytest
import torch

from export.networks.components import build, check_loras
from faceclip_serving.contract.names import DENOISER, TEXT_ENCODER

from .files import CLIP, DOUBLE, FLUX, FLUX_LAYERS, IN_CLIP, adapter, factors, in_kohyas_flux, kohya_text, spelt, written
from .reference import Renamed, by_diffusers, clip_layer, flux_pipeline, fused, require_equal, whole_state


@pytest.mark.parametrize("form", ["kohya", "diffusers", "plain peft", "x-flux"])
def test_flux(transformer, tmp_path, monkeypatch, form):
    seeded = whole_state(build(FLUX, DENOISER).transformer)
    transformer.load_state_dict({name: seeded[name] for name in transformer.state_dict()})
    layers = FLUX_LAYERS
    plain = adapter(transformer, FLUX_LAYERS)
    if form == "kohya":
        tensors = in_kohyas_flux(transformer)
    elif form == "x-flux":
        width, layers = transformer.get_submodule(f"{DOUBLE}.attn.to_q").weight.shape[0], FLUX_LAYERS[:3]
        generator, block = torch.Generator().manual_seed(1), "double_blocks.0.processor.qkv_lora1"
        tensors = {
            f"{block}.down.weight": torch.randn(4, width, generator=generator) * 0.2,
            f"{block}.up.weight": torch.randn(3 * width, 4, generator=generator) * 0.2,
        }
    else:
        prefix = "transformer." if form == "diffusers" else "base_model.model."
        tensors = {f"{prefix}{key}": value for key, value in plain.items()}
    lora = written(tmp_path, tensors)
    reference = lora
    if form == "plain peft":  # which diffusers takes for another form
        reference = written(tmp_path, {f"transformer.{key}": value for key, value in plain.items()}, name="named.safetensors")
    expected = by_diffusers(flux_pipeline(transformer), reference).transformer.state_dict()
    found = whole_state(fused(monkeypatch, FLUX, DENOISER, lora).transformer)
    require_equal(found, {name: value for name, value in expected.items() if name in found}, seeded, layers)


def test_fluxs_clip(transformer, tmp_path, monkeypatch):
    before = whole_state(build(FLUX, TEXT_ENCODER).encoder)
    pipeline = flux_pipeline(transformer)
    for name in [*IN_CLIP, f"{CLIP}.self_attn.k_proj"]:
        clip_layer(pipeline.text_encoder, name).weight.data = before[f"encoder_1.{name}.weight"].clone()
    plain = adapter(Renamed(pipeline.text_encoder), IN_CLIP)
    text = spelt(plain, kohya_text(1), ".lora_down.weight", ".lora_up.weight", 6.0)
    lora = written(tmp_path, text | in_kohyas_flux(transformer))
    by_diffusers(pipeline, lora)
    assert check_loras(FLUX, [lora]) == [{"transformer", "text_encoder"}]
    after = whole_state(fused(monkeypatch, FLUX, TEXT_ENCODER, lora).encoder)
    expected = {f"encoder_1.{name}.weight": clip_layer(pipeline.text_encoder, name).weight for name in IN_CLIP}
    require_equal(after, expected, before, [f"encoder_1.{name}" for name in IN_CLIP])


def test_what_diffusers_names_without_the_transformer_is_applied_all_the_same(transformer, tmp_path):
    """diffusers' converter forgets the part's name for the embedders, and its loader then leaves them out."""
    layer = transformer.get_submodule("time_text_embed.timestep_embedder.linear_1")
    named = spelt(
        {f"time_in_in_layer.{factor}": value for factor, value in factors(layer, 2, 0).items()},
        "lora_unet_{}".format, ".lora_down.weight", ".lora_up.weight",
    )  # fmt: skip
    assert check_loras(FLUX, [written(tmp_path, named)]) == [{"transformer"}]
