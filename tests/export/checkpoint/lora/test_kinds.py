"""Every kind of adapter, LoRA, DoRA, LoHa and LoKr: fused, it gives the weights that peft merges it to."""

from dataclasses import replace

import peft
import pytest
import torch
from safetensors.torch import load_file

from export.checkpoint.lora import Lora
from export.networks.components import build
from faceclip_serving.contract.names import DENOISER
from tests.export.micro import MICRO

from .files import EVERY, LINEAR, OUT, QUERY, SCALE, UNET_LAYERS, adapter, in_kohya, written
from .kohya_names import kohya_name
from .reference import by_diffusers, fused_unet, in_peft, require_equal, sdxl_pipeline


@pytest.mark.proof
@pytest.mark.parametrize(
    "config",
    [
        peft.LoraConfig(r=3, lora_alpha=5, target_modules=EVERY),
        peft.LoraConfig(
            r=4, lora_alpha=5, use_rslora=True, target_modules=EVERY, rank_pattern={QUERY: 2}, alpha_pattern={OUT: 9}
        ),
        peft.LoraConfig(r=3, lora_alpha=5, use_dora=True, target_modules=EVERY),
        peft.LoHaConfig(r=3, alpha=5, target_modules=EVERY),
        peft.LoHaConfig(r=3, alpha=5, target_modules=EVERY, use_effective_conv2d=True),
        peft.LoKrConfig(r=3, alpha=5, target_modules=EVERY, decompose_both=True),
    ],
    ids=["lora", "patterns", "dora", "loha", "loha-tucker", "lokr"],
)
def test_plain_peft(unet, tmp_path, monkeypatch, config):
    expected = in_peft(unet, config, tmp_path)
    lora = Lora(tmp_path / "adapter_model.safetensors", SCALE)
    assert "config_sha256" in lora.describe()
    require_equal(fused_unet(monkeypatch, lora), expected, unet.state_dict(), EVERY)


def test_plain_peft_with_its_adapters_name_and_without_its_configuration(unet, tmp_path, monkeypatch):
    tensors = adapter(unet, EVERY)
    named = {f"base_model.model.{key.replace('.weight', '.default.weight')}": value for key, value in tensors.items()}
    expected = by_diffusers(sdxl_pipeline(unet), written(tmp_path, {f"unet.{key}": value for key, value in tensors.items()}))
    found = fused_unet(monkeypatch, written(tmp_path, named, name="named.safetensors"))
    require_equal(found, expected.unet.state_dict(), unet.state_dict(), EVERY)


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        (peft.LoHaConfig(r=3, alpha=5, target_modules=EVERY), EVERY),
        (peft.LoHaConfig(r=3, alpha=5, target_modules=EVERY, use_effective_conv2d=True), EVERY),
        (peft.LoKrConfig(r=3, alpha=5, target_modules=LINEAR, decompose_both=True), LINEAR),
        (peft.LoKrConfig(r=3, alpha=5, target_modules=LINEAR), LINEAR),
    ],
    ids=["loha", "loha-tucker", "lokr", "lokr-whole"],
)
def test_loha_and_lokr_as_lycoris_writes_them(unet, tmp_path, monkeypatch, config, layers):
    expected = in_peft(unet, config, tmp_path)
    tensors = {}
    for key, value in load_file(tmp_path / "adapter_model.safetensors").items():
        layer, factor = key.removeprefix("base_model.model.").rsplit(".", 1)
        tensors |= {
            f"{kohya_name(layer, unet.config)}.{factor}": value,
            f"{kohya_name(layer, unet.config)}.alpha": torch.tensor(5.0),
        }
    lora = written(tmp_path, tensors)
    assert lora.config is None  # its alpha is in the file
    require_equal(fused_unet(monkeypatch, lora), expected, unet.state_dict(), layers)


def with_magnitudes(unet, tensors):
    generator = torch.Generator().manual_seed(9)
    return {name: torch.rand(unet.get_submodule(name).weight.shape[0], generator=generator) + 0.5 for name in tensors}


def test_dora_as_diffusers_and_as_kohya_write_it(unet, tmp_path, monkeypatch):
    plain, magnitudes = adapter(unet, EVERY), with_magnitudes(unet, EVERY)
    convolution = {name: unet.get_submodule(name).weight.ndim == 4 for name in EVERY}
    peft_form = {f"unet.{key}": value for key, value in plain.items()} | {
        f"unet.{name}.lora_magnitude_vector": value[None, :, None, None] if convolution[name] else value
        for name, value in magnitudes.items()
    }
    kohya_form = in_kohya(plain, unet) | {
        f"{kohya_name(name, unet.config)}.dora_scale": value[:, None, None, None] if convolution[name] else value[:, None]
        for name, value in magnitudes.items()
    }
    lora = written(tmp_path, peft_form)
    expected = by_diffusers(sdxl_pipeline(unet), lora).unet.state_dict()
    for each in (lora, written(tmp_path, kohya_form, name="kohya.safetensors")):
        require_equal(fused_unet(monkeypatch, each), expected, unet.state_dict(), EVERY)
    merged = unet.get_parameter(f"{QUERY}.weight") + SCALE * plain[f"{QUERY}.lora_B.weight"] @ plain[f"{QUERY}.lora_A.weight"]
    by_hand = merged * (magnitudes[QUERY] / merged.norm(dim=1))[:, None]
    torch.testing.assert_close(expected[f"{QUERY}.weight"], by_hand, rtol=2e-6, atol=2e-6)


def test_a_file_of_several_kinds(unet, tmp_path, monkeypatch):
    expected = in_peft(unet, peft.LoHaConfig(r=3, alpha=3, target_modules=[QUERY]), tmp_path)
    loha = {
        key.replace(f"base_model.model.{QUERY}", kohya_name(QUERY, unet.config)): value
        for key, value in load_file(tmp_path / "adapter_model.safetensors").items()
    }
    plain = adapter(unet, [OUT])
    expected[f"{OUT}.weight"] = (
        expected[f"{OUT}.weight"] + SCALE * plain[f"{OUT}.lora_B.weight"] @ plain[f"{OUT}.lora_A.weight"]
    )
    lora = written(tmp_path, loha | in_kohya(plain, unet))
    require_equal(fused_unet(monkeypatch, lora), expected, unet.state_dict(), (QUERY, OUT))


def test_two_loras_add_up_and_zero_changes_nothing(unet, tmp_path):
    one = written(tmp_path, adapter(unet, UNET_LAYERS, "unet."), 0.25)
    twice, at_once, none = (
        build(MICRO, DENOISER, loras=each).unet.state_dict()
        for each in ([one, one], [replace(one, scale=0.5)], [replace(one, scale=0.0)])
    )
    for name, value in unet.state_dict().items():
        torch.testing.assert_close(twice[name], at_once[name], rtol=1e-5, atol=1e-6)
        assert torch.equal(none[name], value)
