"""LoRA files of every kind: fused, they give the weights that diffusers and peft give, and whatever is not applied is refused."""

import json
from dataclasses import replace

import numpy as np
import peft
import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from export.__main__ import main
from export.checkpoint import deferred
from export.checkpoint.lora import Lora, LoraError, parse_lora
from export.networks.components import build, check_loras, loras_of
from export.onnx import export as to_onnx
from export.onnx import parity
from export.onnx.errors import ExportError
from export.onnx.export import export_component
from export.onnx.wanted import Export
from faceclip_serving.contract.components import bounds, components
from faceclip_serving.contract.names import COMPONENTS, DENOISER, FACE_ENCODER, TEXT_ENCODER
from faceclip_serving.contract.variants.sdxl import SDXL, TINY_SDXL
from faceclip_serving.contract.variants.table import VARIANTS
from tests.export.checkpoint.kohya_names import kohya_name
from tests.export.micro import MICRO

FLUX = VARIANTS["tiny-flux"]
BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
QUERY, OUT, FEED, RESNET = (
    f"{BLOCK}.attn1.to_q",
    f"{BLOCK}.attn2.to_out.0",
    f"{BLOCK}.ff.net.0.proj",
    "mid_block.resnets.1.conv1",
)
UNET_LAYERS = (QUERY, OUT, FEED, RESNET, "time_embedding.linear_1", "conv_in")
CLIP = "text_model.encoder.layers.0"
LINEAR = [QUERY, OUT, FEED]
EVERY = [*LINEAR, RESNET]
SCALE = 0.7


# ------------------------------------------------------------------------------------------------------------ making files
def factors(layer, rank, seed):
    """Both factors of a LoRA for a layer, as peft names and shapes them."""
    generator = torch.Generator().manual_seed(seed)
    weight = layer.weight
    down, up = (rank, *weight.shape[1:]), (weight.shape[0], rank, *(1,) * (weight.ndim - 2))
    return {
        "lora_A.weight": torch.randn(down, generator=generator) * 0.2,
        "lora_B.weight": torch.randn(up, generator=generator) * 0.2,
    }


def adapter(network, layers, prefix="", ranks=(3,)):
    """A LoRA as diffusers writes it today: `unet.conv_in.lora_A.weight`."""
    tensors = {}
    for seed, name in enumerate(layers):
        for factor, value in factors(network.get_submodule(name), ranks[seed % len(ranks)], seed).items():
            tensors[f"{prefix}{name}.{factor}"] = value
    return tensors


def spelt(tensors, layer_name, down, up, alpha=None):
    """The same file in another spelling, with an alpha for every layer if one is given."""
    renamed = {}
    for key, value in tensors.items():
        layer, factor = key.split(".lora_")
        renamed[layer_name(layer) + (down if factor[0] == "A" else up)] = value
        if alpha is not None:
            renamed[f"{layer_name(layer)}.alpha"] = torch.tensor(alpha)
    return renamed


def in_kohya(tensors, unet, alpha=None):
    return spelt(tensors, lambda name: kohya_name(name, unet.config), ".lora_down.weight", ".lora_up.weight", alpha)


def written(tmp_path, tensors, scale=SCALE, name="style.safetensors", **header):
    path = tmp_path / name
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, path, metadata=header or None)
    return Lora(path, scale)


# ------------------------------------------------------------------------------------------------ what diffusers and peft give
@pytest.fixture(scope="module")
def unet():
    return build(MICRO, DENOISER).unet


@pytest.fixture(scope="module")
def transformer():
    return FluxTransformer2DModel.from_config(FLUX.architecture.transformer).eval()


def unet_copy(unet):
    copy = UNet2DConditionModel.from_config(unet.config)
    copy.load_state_dict(unet.state_dict())
    return copy


def clip_of(sizes, kind):
    torch.manual_seed(7)
    config = CLIPTextConfig(
        vocab_size=99, hidden_size=sizes.width, intermediate_size=4 * sizes.width, projection_dim=sizes.width,
        num_hidden_layers=sizes.layers, num_attention_heads=sizes.heads,
    )  # fmt: skip
    return kind(config)


def sdxl_pipeline(unet):
    first, second = MICRO.architecture.towers.values()
    return StableDiffusionXLPipeline(
        vae=None, text_encoder=clip_of(first, CLIPTextModel), text_encoder_2=clip_of(second, CLIPTextModelWithProjection),
        tokenizer=None, tokenizer_2=None, unet=unet_copy(unet), scheduler=None,
    )  # fmt: skip


def by_diffusers(pipeline, lora):
    """The pipeline with the file loaded and fused by diffusers itself, at the same scale."""
    pipeline.load_lora_weights(str(lora.path))
    names = [
        name for name in ("unet", "transformer", "text_encoder", "text_encoder_2") if getattr(pipeline, name, None) is not None
    ]
    pipeline.fuse_lora(components=names, lora_scale=lora.scale)
    pipeline.unload_lora_weights()
    return pipeline


def fused(monkeypatch, variant, component, lora):
    """The network of ours with a file fused; every large weight deferred, as at full size."""
    monkeypatch.setattr(deferred, "LARGE", 256)
    assert loras_of(variant, component, [lora]) == [lora]
    module = build(variant, component, loras=[lora])
    return module


def fused_unet(monkeypatch, lora):
    return whole_state(fused(monkeypatch, MICRO, DENOISER, lora).unet)


def whole_state(module):
    return {name: deferred.values(tensor) for name, tensor in [*module.named_parameters(), *module.named_buffers()]}


def require_equal(found, expected, before, layers):
    changed = {name.removesuffix(".weight") for name in found if not torch.equal(found[name], before[name])}
    assert changed == set(layers)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=2e-6, atol=2e-6)


# ------------------------------------------------------------------------------------------------------------------- UNet
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
        adapter(unet, layers),
        lambda name: "lora_unet_" + name.replace(".", "_"),
        ".lora_down.weight",
        ".lora_up.weight",
        6.0,
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


def in_peft(unet, config, folder):
    """A file that peft saved, with values in all its tensors, and the weights that peft merges them to."""
    torch.manual_seed(3)
    model = peft.get_peft_model(unet_copy(unet), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "hada_" in name or "lokr_" in name:
                parameter.copy_(torch.rand_like(parameter) + 0.5 if "magnitude" in name else torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    loaded = peft.PeftModel.from_pretrained(unet_copy(unet), folder)
    for module in loaded.modules():
        if isinstance(module, peft.tuners.tuners_utils.BaseTunerLayer):
            module.scale_layer(SCALE)
    return loaded.merge_and_unload().state_dict()


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


@pytest.mark.parametrize("variant", [SDXL, TINY_SDXL, VARIANTS["nano"]], ids=lambda variant: variant.name)
def test_every_layer_of_a_unet_arrives_under_kohyas_name(variant, tmp_path):
    with torch.device("meta"):
        network = UNet2DConditionModel(**variant.architecture.unet)
    layers = [name for name, layer in network.named_modules() if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)]
    lora = written(tmp_path, in_kohya(adapter(network, layers, ranks=(1,)), network))
    assert check_loras(variant, [lora]) == [{"unet"}]


# ---------------------------------------------------------------------------------------------------------- text encoders
IN_CLIP = [f"{CLIP}.self_attn.{name}" for name in ("q_proj", "v_proj", "out_proj")] + [f"{CLIP}.mlp.fc1", f"{CLIP}.mlp.fc2"]
PACKED = {"q_proj": 0, "k_proj": 1, "v_proj": 2}


def clip_layer(encoder, name):
    return encoder.get_submodule(name if hasattr(encoder, "text_model") else name.removeprefix("text_model."))


class Renamed(torch.nn.Module):
    """A CLIP whose layers are found under the names that files have."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def get_submodule(self, name):
        return clip_layer(self.encoder, name)


def tower_into(clip, state, tower):
    """Gives a CLIP the weights of one of our towers."""
    for name in [*IN_CLIP, f"{CLIP}.self_attn.k_proj"]:
        clip_layer(clip, name).weight.data = tower_matrix(state, tower, name).clone()


def tower_matrix(state, tower, name):
    block, last = f"{tower}.transformer.resblocks.0", name.rsplit(".", 1)[1]
    if last in PACKED:
        return state[f"{block}.attn.in_proj_weight"].chunk(3)[PACKED[last]]
    return state[f"{block}.{ {'out_proj': 'attn.out_proj', 'fc1': 'mlp.c_fc', 'fc2': 'mlp.c_proj'}[last] }.weight"]


def kohya_text(number):
    return lambda name: f"lora_te{number}_" + name.replace(".", "_")


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


# ------------------------------------------------------------------------------------------------------------------- FLUX
DOUBLE, SINGLE = "transformer_blocks.0", "single_transformer_blocks.0"
FLUX_LAYERS = [
    *(f"{DOUBLE}.{name}" for name in ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "ff.net.0.proj", "norm1.linear")),
    f"{SINGLE}.proj_out",
]


def flux_pipeline(transformer):
    copy = FluxTransformer2DModel.from_config(transformer.config)
    copy.load_state_dict(transformer.state_dict())
    return FluxPipeline(
        scheduler=None, vae=None, text_encoder=clip_of(FLUX.architecture.pooled, CLIPTextModel), tokenizer=None, text_encoder_2=None,
        tokenizer_2=None, transformer=copy,
    )  # fmt: skip


def in_kohyas_flux(transformer):
    """kohya's names: query, key and value are one layer."""
    width = transformer.get_submodule(f"{DOUBLE}.attn.to_q").weight.shape[0]
    names = {
        "double_blocks_0_img_attn_qkv": (3 * width, width), "double_blocks_0_img_attn_proj": (width, width),
        "double_blocks_0_img_mlp_0": (4 * width, width), "double_blocks_0_img_mod_lin": (6 * width, width),
        "single_blocks_0_linear2": (width, 5 * width),
    }  # fmt: skip
    tensors, generator = {}, torch.Generator().manual_seed(1)
    for name, (rows, columns) in names.items():
        tensors |= {
            f"lora_unet_{name}.lora_down.weight": torch.randn(4, columns, generator=generator) * 0.2,
            f"lora_unet_{name}.lora_up.weight": torch.randn(rows, 4, generator=generator) * 0.2,
            f"lora_unet_{name}.alpha": torch.tensor(2.0),
        }
    return tensors


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


# --------------------------------------------------------------------------------------------------------------- refusals
def refused(tmp_path, tensors, message, variant=MICRO, **header):
    with pytest.raises(LoraError, match=message):
        check_loras(variant, [written(tmp_path, tensors, **header)])


def test_a_file_without_tensors_or_with_half_a_lora(unet, tmp_path):
    refused(tmp_path, {}, "style.safetensors: has no tensors")
    tensors = in_kohya(adapter(unet, [QUERY]), unet)
    for missing in tensors:
        rest = {key: value for key, value in tensors.items() if key != missing}
        refused(tmp_path, rest, rf"expected all factors of a LoRA, LoHa or LoKr, got only {next(iter(rest))}")
    loha = {f"unet.{QUERY}.hada_{name}": torch.ones(64, 64) for name in ("w1_a", "w1_b", "w2_a")}
    refused(tmp_path, loha, "expected all factors")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("which", ["lora_down.weight", "lora_up.weight", "alpha"])
def test_values_that_are_not_finite(unet, tmp_path, which, value):
    tensors = in_kohya(adapter(unet, [QUERY, OUT]), unet, 3.0)
    key = f"{kohya_name(QUERY, unet.config)}.{which}"
    broken = tensors[key].clone()
    broken.view(-1)[0] = value
    refused(tmp_path, tensors | {key: broken}, rf"style.safetensors: {key}: holds values that are not finite")


def test_factors_whose_product_leaves_the_range(unet, tmp_path):
    tensors = {key: value * 1e30 for key, value in in_kohya(adapter(unet, [QUERY]), unet).items()}
    refused(tmp_path, tensors, "the product of the factors may leave FP32's range")


def test_layers_that_are_nowhere_are_named_among_good_ones(unet, tmp_path):
    good = adapter(unet, [QUERY, RESNET])
    for tensors in (
        {f"unet.{key}": value for key, value in good.items()},
        in_kohya(good, unet),
        {f"base_model.model.{key}": value for key, value in good.items()},
    ):
        first = next(iter(tensors))
        stray = first.replace("transformer_blocks", "transformer_clocks")
        assert stray != first
        layer, stray_layer = (key.rsplit(".lora_", 1)[0] for key in (first, stray))
        more = {key.replace(layer, stray_layer): value for key, value in tensors.items() if key.startswith(layer)}
        refused(
            tmp_path,
            tensors | more,
            rf"style.safetensors: .*{stray_layer}\.lora_",
        )


def test_layers_that_the_converter_leaves_out_are_named(unet, tmp_path):
    """Of a file that mixes both of kohya's spellings, diffusers drops one in silence."""
    by_diffusers_name = spelt(
        adapter(unet, [FEED]), lambda name: "lora_unet_" + name.replace(".", "_"), ".lora_down.weight", ".lora_up.weight"
    )
    stability = in_kohya(adapter(unet, [QUERY]), unet)
    refused(tmp_path, stability | by_diffusers_name, f"{next(iter(stability))}.*no such layer")


@pytest.mark.parametrize("end", ["lora_mid.weight", "diff_b", "lora_B.bias", "on_input", "weight"])
def test_tensors_that_are_no_factors(unet, tmp_path, end):
    key = f"unet.{QUERY}.{end}"
    refused(tmp_path, adapter(unet, [QUERY], "unet.") | {key: torch.ones(3, 3)}, rf"{key}: not a factor")


def test_one_layer_twice(unet, tmp_path):
    tensors = adapter(unet, [QUERY], "unet.") | adapter(unet, [QUERY], "base_model.model.")
    refused(tmp_path, tensors, f"unet.{QUERY}: changed by two layers")


def test_shapes_of_another_model(unet, tmp_path):
    tensors = adapter(unet, [QUERY], "unet.")
    wide = {key: torch.cat((value, value), dim=1 if "lora_A" in key else 0) for key, value in tensors.items()}
    refused(tmp_path, wide, rf"peft cannot load it as lora: RuntimeError: size mismatch for {QUERY}")
    ranks = {key: value[:2] if "lora_A" in key else value for key, value in tensors.items()}
    refused(tmp_path, ranks, "size mismatch")


def test_another_familys_file(unet, transformer, tmp_path):
    refused(tmp_path, adapter(transformer, FLUX_LAYERS, "transformer."), "no such layer in the networks of 'micro-sdxl'")
    refused(tmp_path, in_kohyas_flux(transformer), "style.safetensors: .*(no such layer|cannot read)")
    refused(tmp_path, adapter(unet, UNET_LAYERS, "unet."), "no such layer in the networks of 'tiny-flux'", FLUX)
    refused(tmp_path, in_kohya(adapter(unet, UNET_LAYERS), unet), "style.safetensors: .*(no such layer|cannot read)", FLUX)


def test_a_dora_whose_magnitudes_are_of_inputs_or_whose_layer_is_cut(unet, transformer, tmp_path):
    layer, key = unet.get_submodule(QUERY), f"{kohya_name(QUERY, unet.config)}.dora_scale"
    scale = torch.ones(1, layer.weight.shape[1])
    refused(tmp_path, in_kohya(adapter(unet, [QUERY]), unet) | {key: scale}, f"{key}.*each of 64 outputs.*\\[1, 64\\]")
    packed = in_kohyas_flux(transformer)
    rows = packed["lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight"].shape[0]
    packed["lora_unet_double_blocks_0_img_attn_qkv.dora_scale"] = torch.ones(rows, 1)
    refused(tmp_path, packed, "img_attn_qkv.*cut or turned.*DoRA", FLUX)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("not json", "its header's lora_adapter_metadata: expected JSON"),
        ("[1]", "expected a JSON object of settings, got list"),
        ('{"unet.lora_alpha": "much"}', "peft cannot load it as lora: TypeError"),
        ('{"unet.r": 3, "unet.strange": true}', "strange: a setting that LoraConfig of this peft does not know"),
        ('{"unet.r": 3, "unet.lora_bias": true}', "lora_B.fused.bias: peft has no place or no value for these"),
        ('{"unet.r": 3, "unet.init_lora_weights": "pissa"}', "was trained from weights that 'pissa' had changed"),
    ],
)
def test_headers_that_cannot_be_obeyed(unet, tmp_path, header, message):
    refused(tmp_path, adapter(unet, [QUERY], "unet."), message, lora_adapter_metadata=header)


def test_two_alphas(unet, tmp_path):
    tensors = adapter(unet, [QUERY], "unet.") | {f"unet.{QUERY}.alpha": torch.tensor(3.0)}
    refused(
        tmp_path, tensors, "alpha among the tensors and another", lora_adapter_metadata='{"unet.r": 3, "unet.lora_alpha": 4}'
    )


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


def test_a_file_that_cannot_be_fused_ends_the_command_before_the_first_component(unet, tmp_path, capsys, monkeypatch):
    with torch.device("meta"):
        network = UNet2DConditionModel(**TINY_SDXL.architecture.unet)
    layer = next(name for name, _ in network.named_modules() if name.endswith("attn1.to_q"))
    good = adapter(network, [layer], "unet.")
    stray = {key.replace("attn1", "attn3"): value for key, value in good.items()}
    monkeypatch.setattr(to_onnx, "export_components", lambda *_: pytest.fail("the export began"))
    file = written(tmp_path, good | stray).path
    arguments = [
        "onnx",
        "--variant",
        "tiny-sdxl",
        "--component",
        FACE_ENCODER,
        "--lora",
        str(file),
        "--output",
        str(tmp_path / "out"),
    ]
    assert main(arguments) == 1
    assert "attn3" in capsys.readouterr().err and not (tmp_path / "out").exists()


# ----------------------------------------------------------------------------------------------------------------- export
def test_the_exported_graph_computes_with_the_lora_and_is_made_again_for_another_scale(unet, tmp_path, monkeypatch):
    tensors = adapter(unet, [QUERY, RESNET])
    given, folder = written(tmp_path, in_kohya(tensors, unet, 6.0)), tmp_path / "denoiser"
    metadata = export_component(Export(MICRO, DENOISER, "fp32", loras=(given,)), folder)
    assert metadata["loras"] == [{**given.describe(), "scale": SCALE}]
    signature = components(MICRO)[DENOISER]
    case = parity.cases(MICRO, signature, bounds(MICRO, 8)[DENOISER])[1]
    reference = build(MICRO, DENOISER)
    plain = parity.torch_run(reference, signature)(case.inputs)["noise_pred"].copy()
    reference.unet.load_state_dict(by_diffusers(sdxl_pipeline(unet), given).unet.state_dict())
    expected = parity.torch_run(reference, signature)(case.inputs)["noise_pred"]
    found = parity.onnx_run(folder / "model.onnx", signature)(case.inputs)["noise_pred"]
    assert np.abs(found - expected).max() < 5e-5 * np.abs(expected).max() < np.abs(plain - expected).max()
    assert export_component(Export(MICRO, DENOISER, "fp32", loras=(given,)), folder) == metadata
    monkeypatch.setattr(to_onnx, "_make", lambda *_: {})
    again = export_component(Export(MICRO, DENOISER, "fp32", loras=(replace(given, scale=0.8),)), folder)
    assert again["identity"] != metadata["identity"]
    with pytest.raises(ExportError, match=r"was made with LoRA style.safetensors:0.8, and nothing like it is named now"):
        export_component(Export(MICRO, DENOISER, "fp32"), folder)


def test_only_the_components_that_a_file_names_are_changed(unet, tmp_path):
    given = written(tmp_path, adapter(unet, UNET_LAYERS, "unet."))
    reached = {component for component in COMPONENTS if loras_of(MICRO, component, [given])}
    assert reached == {DENOISER}
