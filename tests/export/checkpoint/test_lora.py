"""LoRA files in both formats: names as diffusers maps them, weights by the formula, and the exported graph with them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders import lora_conversion_utils
from safetensors.torch import save_file

from export.checkpoint.lora import Lora, LoraError, fuse, parse_lora
from export.checkpoint.lora_names import TOWERS, UNET, stability_name
from export.networks.components import build, loras_of
from export.onnx import export as to_onnx
from export.onnx import parity
from export.onnx.export import export_component
from export.onnx.wanted import Export
from faceclip_serving.contract.sdxl import SDXL, TINY_SDXL
from faceclip_serving.contract.signatures import DENOISER, FACE_ENCODER, TEXT_ENCODER, VAE_DECODER, bounds, components
from faceclip_serving.contract.variants import VARIANTS
from tests.export.micro import MICRO

ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
RESNET = "mid_block.resnets.1.conv1"
RANK = 3


def factors(down_shape, up_shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(down_shape, generator=generator) * 0.2, torch.randn(up_shape, generator=generator) * 0.2


@pytest.fixture(scope="module")
def unet():
    """The denoiser's network as the fusing sees it: diffusers' UNet, filled."""
    return build(MICRO, DENOISER).unet


def lora(tmp_path, tensors, scale=1.0, **header):
    path = tmp_path / "style.safetensors"
    save_file({name: value.contiguous() for name, value in tensors.items()}, path, metadata=header or None)
    return Lora(path, scale)


def in_diffusers(unet):
    """An attention layer and a convolution, with what they should add before the scale."""
    matrix, kernel = unet.get_parameter(f"{ATTENTION}.weight"), unet.get_parameter(f"{RESNET}.weight")
    down, up = factors((RANK, matrix.shape[1]), (matrix.shape[0], RANK))
    conv_down, conv_up = factors((RANK, *kernel.shape[1:]), (kernel.shape[0], RANK, 1, 1), seed=1)
    tensors = {
        f"unet.{ATTENTION}.lora_A.weight": down,
        f"unet.{ATTENTION}.lora_B.weight": up,
        f"unet.{RESNET}.lora_A.weight": conv_down,
        f"unet.{RESNET}.lora_B.weight": conv_up,
    }
    return tensors, {ATTENTION: up @ down, RESNET: torch.einsum("or,rihw->oihw", conv_up[..., 0, 0], conv_down)}


def in_kohya(tensors, alpha, name=lambda dotted: dotted):
    renamed = {}
    for key, value in tensors.items():
        layer, _, kind = key.removeprefix("unet.").partition(".lora_")
        spelt = "lora_unet_" + name(layer).replace(".", "_")
        renamed[f"{spelt}.lora_{'down' if kind.startswith('A') else 'up'}.weight"] = value
        renamed[f"{spelt}.alpha"] = torch.tensor(alpha)
    return renamed


def fused_copy(unet, *loras):
    copy = UNet2DConditionModel.from_config(unet.config)
    copy.load_state_dict(unet.state_dict())
    for each in loras:
        fuse(copy, MICRO, UNET, each)
    return copy.state_dict()


def test_the_weights_follow_the_formula_in_every_format(unet, tmp_path):
    tensors, changes = in_diffusers(unet)
    stability = in_kohya(tensors, 1.5, lambda dotted: stability_name(dotted, unet.config))
    assert any("input_blocks" in key for key in stability) and any("middle_block_2_in_layers_2" in key for key in stability)
    header = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 6, "unet.r": RANK})}
    rank_stable = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 6, "unet.use_rslora": True})}
    before = unet.state_dict()
    for written, head, strength in (
        (tensors, {}, 1.0),
        (tensors, header, 6 / RANK),
        (tensors, rank_stable, 6 / RANK**0.5),
        (in_kohya(tensors, 1.5), {}, 0.5),
        (stability, {}, 0.5),
    ):
        after = fused_copy(unet, lora(tmp_path, written, 0.8, **head))
        changed = {name.removesuffix(".weight") for name in after if not torch.equal(after[name], before[name])}
        assert changed == set(changes)
        for layer, change in changes.items():
            expected = before[f"{layer}.weight"] + 0.8 * strength * change
            torch.testing.assert_close(after[f"{layer}.weight"], expected, rtol=1e-5, atol=1e-6)


def test_the_first_form_of_diffusers_is_read_too(unet, tmp_path):
    matrix = unet.get_parameter(f"{ATTENTION}.weight")
    down, up = factors((RANK, matrix.shape[1]), (matrix.shape[0], RANK))
    old = ATTENTION.replace(".to_q", ".processor.to_q_lora")
    after = fused_copy(unet, lora(tmp_path, {f"unet.{old}.down.weight": down, f"unet.{old}.up.weight": up}))
    torch.testing.assert_close(after[f"{ATTENTION}.weight"], matrix + up @ down)


def test_two_loras_add_up_and_zero_changes_nothing(unet, tmp_path):
    tensors, _ = in_diffusers(unet)
    one = lora(tmp_path, tensors, 0.25)
    twice, at_once, none = (
        fused_copy(unet, *each) for each in ([one, one], [replace(one, scale=0.5)], [replace(one, scale=0.0)])
    )
    for name, value in unet.state_dict().items():
        torch.testing.assert_close(twice[name], at_once[name], rtol=1e-5, atol=1e-6)
        assert torch.equal(none[name], value)


@pytest.mark.parametrize("variant", [SDXL, TINY_SDXL, MICRO, VARIANTS["nano"]], ids=lambda variant: variant.name)
def test_stabilitys_names_are_those_that_diffusers_reads(variant):
    """diffusers' own conversion, which needs no peft, takes every one of our spellings back to the layer it stands for."""
    with torch.device("meta"):
        network = UNet2DConditionModel(**variant.architecture.unet)
    layers = [name for name, layer in network.named_modules() if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)]
    spelt = {name: "lora_unet_" + stability_name(name, network.config).replace(".", "_") for name in layers}
    assert len(set(spelt.values())) == len(layers)
    state = {f"{value}.lora_{end}.weight": torch.zeros(1, 1) for value in spelt.values() for end in ("down", "up")}
    state = lora_conversion_utils._maybe_map_sgm_blocks_to_diffusers(state, network.config)
    converted, _ = lora_conversion_utils._convert_non_diffusers_lora_to_diffusers(state)
    read = {key.split(".lora")[0].removeprefix("unet.").split("_lora.")[0].replace(".processor", "") for key in converted}
    assert read == {name.replace("to_out.0", "to_out") if "transformer_blocks" in name else name for name in layers}


def test_text_encoders_names_reach_the_towers_and_their_packed_projections(tmp_path):
    module = build(MICRO, TEXT_ENCODER).encoder
    before = {name: value.clone() for name, value in module.state_dict().items()}
    width = MICRO.architecture.towers["face_clip_l"].width
    down, up = factors((RANK, width), (width, RANK))
    wide_down, wide_up = factors((RANK, 96), (4 * 96, RANK))
    attention, mlp = "text_model.encoder.layers.0.self_attn.v_proj", "lora_te2_text_model_encoder_layers_0_mlp_fc1"
    given = lora(tmp_path, {
        f"text_encoder.{attention}.lora_A.weight": down, f"text_encoder.{attention}.lora_B.weight": up,
        f"{mlp}.lora_down.weight": wide_down, f"{mlp}.lora_up.weight": wide_up, f"{mlp}.alpha": torch.tensor(float(RANK)),
    })  # fmt: skip
    assert fuse(module, MICRO, TOWERS, given) == 2
    packed, hidden = (
        "face_clip_l.transformer.resblocks.0.attn.in_proj_weight",
        "face_clip_g.transformer.resblocks.0.mlp.c_fc.weight",
    )
    after = module.state_dict()
    assert {name for name in after if not torch.equal(after[name], before[name])} == {packed, hidden}
    torch.testing.assert_close(after[packed][: 2 * width], before[packed][: 2 * width], rtol=0, atol=0)
    torch.testing.assert_close(after[packed][2 * width :], before[packed][2 * width :] + up @ down)
    torch.testing.assert_close(after[hidden], before[hidden] + wide_up @ wide_down)


def test_the_exported_graph_computes_with_the_lora_and_is_made_again_for_another_scale(unet, tmp_path, monkeypatch):
    tensors, changes = in_diffusers(unet)
    given, folder = lora(tmp_path, in_kohya(tensors, 6.0), 0.7), tmp_path / "denoiser"
    metadata = export_component(Export(MICRO, DENOISER, "fp32", loras=(given,)), folder)
    assert metadata["loras"] == [{**given.describe(), "scale": 0.7}]
    signature = components(MICRO)[DENOISER]
    case = parity.cases(MICRO, signature, bounds(MICRO, 8)[DENOISER])[1]
    by_hand = build(MICRO, DENOISER)
    plain = parity.torch_run(by_hand, signature)(case.inputs)["noise_pred"].copy()
    with torch.no_grad():
        for layer, change in changes.items():
            by_hand.unet.get_parameter(f"{layer}.weight").add_(0.7 * 6.0 / RANK * change)
    expected = parity.torch_run(by_hand, signature)(case.inputs)["noise_pred"]
    found = parity.onnx_run(folder / "model.onnx", signature)(case.inputs)["noise_pred"]
    assert np.abs(found - expected).max() < 5e-5 * np.abs(expected).max() < np.abs(plain - expected).max()
    assert export_component(Export(MICRO, DENOISER, "fp32", loras=(given,)), folder) == metadata
    monkeypatch.setattr(to_onnx, "_make", lambda *_: {})
    assert (
        export_component(Export(MICRO, DENOISER, "fp32", loras=(replace(given, scale=0.8),)), folder)["identity"]
        != metadata["identity"]
    )


def test_only_the_components_that_a_file_names_are_changed(unet, tmp_path):
    given = lora(tmp_path, in_diffusers(unet)[0])
    reached = {
        component for component in (FACE_ENCODER, TEXT_ENCODER, DENOISER, VAE_DECODER) if loras_of(MICRO, component, [given])
    }
    assert reached == {DENOISER}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {"unet.mid_block.nothing.lora_A.weight": (3, 4)},
            r"'?unet.mid_block.nothing.*no such layer in the networks of 'micro-sdxl'",
        ),
        ({f"unet.{ATTENTION}.hada_w1_a": (3, 4)}, "hada_w1_a: not a LoRA's factor; LoHa, LoKr and DoRA are not supported"),
        ({f"unet.{ATTENTION}.lora_A.weight": (3, 64)}, r"expected both factors of a LoRA, got \['down'\]"),
        (
            {f"unet.{ATTENTION}.lora_A.weight": (3, 640), f"unet.{ATTENTION}.lora_B.weight": (640, 3)},
            r"factors \[640, 3\] and \[3, 640\] do not make the layer's \[64, 64\]",
        ),
    ],
)
def test_what_is_not_understood_is_named(unet, tmp_path, tensors, message):
    given = lora(tmp_path, {name: torch.zeros(shape) for name, shape in tensors.items()})
    with pytest.raises(LoraError, match=message):
        fuse(unet, MICRO, UNET, given)


def test_tensors_for_no_part_of_the_variant_are_named(unet, tmp_path):
    given = lora(tmp_path, {**in_diffusers(unet)[0], "transformer.x.lora_A.weight": torch.zeros(1, 1)})
    with pytest.raises(LoraError, match=r"transformer.x.lora_A.weight: no part of this variant; known beginnings: .*unet\."):
        loras_of(MICRO, VAE_DECODER, [given])
    with pytest.raises(LoraError, match="none: this family takes no LoRA"):
        loras_of(VARIANTS["tiny-flux"], DENOISER, [given])


def test_what_the_header_asks_for_and_is_not_done_is_refused(unet, tmp_path):
    given = lora(tmp_path, in_diffusers(unet)[0], lora_adapter_metadata=json.dumps({"unet.use_dora": True}))
    with pytest.raises(LoraError, match="its header asks for use_dora"):
        fuse(unet, MICRO, UNET, given)


def test_a_lora_on_the_command_line(tmp_path):
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"no safetensors")
    assert parse_lora(f"{file}:0.8") == Lora(file, 0.8) and parse_lora(str(file)) == Lora(file, 1.0)
    with pytest.raises(LoraError, match="expected FILE or FILE:SCALE"):
        parse_lora("missing.safetensors:0.8")
    with pytest.raises(LoraError, match="expected a finite scale"):
        parse_lora(f"{file}:nan")
    with pytest.raises(LoraError, match="expected a safetensors file"):
        loras_of(MICRO, DENOISER, [Lora(file)])
