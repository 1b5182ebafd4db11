"""Whatever of a file is not applied is refused, and named."""

import pytest
import torch

from export.checkpoint.lora import LoraError
from export.networks.components import check_loras
from tests.export.micro import MICRO

from .files import FEED, FLUX, FLUX_LAYERS, OUT, QUERY, RESNET, UNET_LAYERS, adapter, in_kohya, in_kohyas_flux, spelt, written
from .kohya_names import kohya_name


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
        refused(tmp_path, tensors | more, rf"style.safetensors: .*{stray_layer}\.lora_")


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
