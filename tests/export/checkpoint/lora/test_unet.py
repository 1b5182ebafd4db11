"""A LoRA of a UNet in every spelling: fused, it gives the weights that diffusers gives."""

import json

import pytest
import torch
from diffusers import UNet2DConditionModel

from export.networks.components import check_loras
from faceclip_serving.contract.variants.sdxl import SDXL, TINY_SDXL
from faceclip_serving.contract.variants.table import VARIANTS

from .files import EVERY, FEED, OUT, QUERY, RESNET, SCALE, UNET_LAYERS, adapter, in_kohya, spelt, written
from .kohya_names import kohya_name
from .reference import by_diffusers, fused_unet, require_equal, sdxl_pipeline


def test_kohya(unet, tmp_path, monkeypatch):
    tensors = in_kohya(adapter(unet, UNET_LAYERS, ranks=(3, 2, 5, 3)), unet, 1.5)
    assert any("input_blocks_3_1" in key for key in tensors) and any("middle_block_2_in_layers_2" in key for key in tensors)
    lora = written(tmp_path, tensors)
    expected = by_diffusers(sdxl_pipeline(unet), lora).unet.state_dict()
    require_equal(fused_unet(monkeypatch, lora), expected, unet.state_dict(), UNET_LAYERS)


def test_kohyas_alpha_of_each_layer(unet, tmp_path, monkeypatch):
    """diffusers forgets that of attentions where alphas differ, so what kohya's scripts compute is the reference."""
    plain, ranks = adapter(unet, EVERY, ranks=(3, 2)), (3, 2, 3, 2)
    alphas = dict(zip(EVERY, (1.5, 4.0, 3.0, 0.5), strict=True))
    tensors = in_kohya(plain, unet) | {
        f"{kohya_name(name, unet.config)}.alpha": torch.tensor(value) for name, value in alphas.items()
    }
    expected = unet.state_dict()
    for (name, alpha), rank in zip(alphas.items(), ranks, strict=True):
        down, up = (plain[f"{name}.lora_{side}.weight"] for side in "AB")
        change = (up.flatten(1) @ down.flatten(1)).reshape(expected[f"{name}.weight"].shape)
        expected[f"{name}.weight"] = expected[f"{name}.weight"] + SCALE * alpha / rank * change
    require_equal(fused_unet(monkeypatch, written(tmp_path, tensors)), expected, unet.state_dict(), EVERY)


def test_kohyas_spelling_of_diffusers_names(unet, tmp_path, monkeypatch):
    layers = (QUERY, OUT, FEED, RESNET)
    tensors = spelt(
        adapter(unet, layers), lambda name: "lora_unet_" + name.replace(".", "_"), ".lora_down.weight", ".lora_up.weight", 6.0
    )
    lora = written(tmp_path, tensors)
    expected = by_diffusers(sdxl_pipeline(unet), lora).unet.state_dict()
    require_equal(fused_unet(monkeypatch, lora), expected, unet.state_dict(), layers)


@pytest.mark.parametrize("settings", [{}, {"lora_alpha": 6}, {"lora_alpha": 6, "use_rslora": True}])
def test_diffusers(unet, tmp_path, monkeypatch, settings):
    named = {f"unet.{key}": value for key, value in settings.items()}
    header = {"lora_adapter_metadata": json.dumps({**named, "unet.r": 3, "unet.target_modules": list(UNET_LAYERS)})}
    lora = written(tmp_path, adapter(unet, UNET_LAYERS, "unet."), **(header if settings else {}))
    expected = by_diffusers(sdxl_pipeline(unet), lora).unet.state_dict()
    require_equal(fused_unet(monkeypatch, lora), expected, unet.state_dict(), UNET_LAYERS)


@pytest.mark.parametrize("prefix", ["unet.", ""])
def test_the_first_form_of_diffusers(unet, tmp_path, monkeypatch, prefix):
    layers = (QUERY, OUT)

    def old(name):
        return prefix + name.replace(".attn1.to_q", ".attn1.processor.to_q_lora").replace(
            ".attn2.to_out.0", ".attn2.processor.to_out_lora"
        )

    tensors = spelt(adapter(unet, layers), old, ".down.weight", ".up.weight")
    lora = written(tmp_path, tensors)
    # diffusers' pipelines want the part's name
    named = written(
        tmp_path, {f"unet.{key.removeprefix(prefix)}": value for key, value in tensors.items()}, name="named.safetensors"
    )
    expected = by_diffusers(sdxl_pipeline(unet), named).unet.state_dict()
    require_equal(fused_unet(monkeypatch, lora), expected, unet.state_dict(), layers)


@pytest.mark.proof
@pytest.mark.parametrize("variant", [SDXL, TINY_SDXL, VARIANTS["nano"]], ids=lambda variant: variant.name)
def test_every_layer_of_a_unet_arrives_under_kohyas_name(variant, tmp_path):
    with torch.device("meta"):
        network = UNet2DConditionModel(**variant.architecture.unet)
    layers = [name for name, layer in network.named_modules() if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)]
    lora = written(tmp_path, in_kohya(adapter(network, layers, ranks=(1,)), network))
    assert check_loras(variant, [lora]) == [{"unet"}]
