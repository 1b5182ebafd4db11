"""LoRAs of SDXL's text encoders reach the towers of ours."""

import pytest
import torch

from export.networks.components import build, check_loras, loras_of
from faceclip_serving.contract.names import DENOISER, TEXT_ENCODER
from tests.export.micro import MICRO

from .files import CLIP, IN_CLIP, adapter, kohya_text, spelt, written
from .reference import Renamed, by_diffusers, clip_layer, fused, sdxl_pipeline, tower_into, tower_matrix, whole_state


@pytest.mark.parametrize("form", ["kohya", "diffusers", "diffusers of old"])
def test_text_encoders_reach_the_towers_and_their_packed_projections(unet, tmp_path, monkeypatch, form):
    before = whole_state(build(MICRO, TEXT_ENCODER).encoder)
    pipeline, tensors = sdxl_pipeline(unet), {}
    for number, (part, tower) in enumerate(zip(("text_encoder", "text_encoder_2"), MICRO.architecture.towers, strict=True), 1):
        clip = getattr(pipeline, part)
        tower_into(clip, before, tower)
        plain = adapter(Renamed(clip), IN_CLIP, ranks=(3, 2))
        if form == "kohya":
            tensors |= spelt(plain, kohya_text(number), ".lora_down.weight", ".lora_up.weight", 1.5)
        elif form == "diffusers":
            tensors |= {f"{part}.{key}": value for key, value in plain.items()}
        else:
            tensors |= spelt(plain, (part + ".{}").format, ".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight")
    lora = written(tmp_path, tensors)
    by_diffusers(pipeline, lora)
    assert loras_of(MICRO, DENOISER, [lora]) == []
    after = whole_state(fused(monkeypatch, MICRO, TEXT_ENCODER, lora).encoder)
    for part, tower in zip(("text_encoder", "text_encoder_2"), MICRO.architecture.towers, strict=True):
        for name in IN_CLIP:
            found, expected = tower_matrix(after, tower, name), clip_layer(getattr(pipeline, part), name).weight
            torch.testing.assert_close(found, expected, rtol=2e-6, atol=2e-6)
            assert not torch.equal(found, tower_matrix(before, tower, name))
        untouched = f"{CLIP}.self_attn.k_proj"
        assert torch.equal(tower_matrix(after, tower, untouched), tower_matrix(before, tower, untouched))
    assert {name.split(".", 1)[0] for name in after if not torch.equal(after[name], before[name])} == set(
        MICRO.architecture.towers
    )


def test_a_plain_file_of_a_text_encoder_goes_where_it_fits(unet, tmp_path):
    second = sdxl_pipeline(unet).text_encoder_2
    tensors = adapter(Renamed(second), IN_CLIP, "base_model.model.")
    assert check_loras(MICRO, [written(tmp_path, tensors)]) == [{"text_encoder_2"}]
