"""FLUX's components against the networks they wrap: diffusers' own transformer and VAE, and the encoder's reference form."""

from fnmatch import fnmatchcase

import pytest
import torch
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from diffusers.models.transformers.transformer_flux import FluxPosEmbed

from export.checkpoint.seeded import fill_seeded
from export.networks.components import NETWORKS, build, network
from export.networks.faceclip.face_t5 import FaceT5Encoder
from export.networks.flux import Denoiser, RotaryTables
from export.networks.wide import WideLinear
from export.onnx.example_inputs import example_inputs
from export.onnx.precision import HalfArithmetic, to_half
from export.onnx.record import read_metadata
from faceclip_serving.contract.components import both_sides, bounds, components
from faceclip_serving.contract.names import COMPONENTS, DENOISER, FACE_ENCODER, TEXT_ENCODER, VAE_DECODER, VAE_ENCODER
from faceclip_serving.contract.tensors import TensorError
from faceclip_serving.contract.variants.architectures import FluxArchitecture
from faceclip_serving.contract.variants.flux import FLUX, TINY_FLUX
from tests.export.micro import MICRO_FLUX, exported

SIZES = both_sides(TINY_FLUX, {"faces": 2, "rows": 3, "images": 2, "latent_height": 10, "latent_width": 14})


def tensors(component, sizes=SIZES):
    signature = components(TINY_FLUX)[component]
    return [torch.from_numpy(array) for array in example_inputs(TINY_FLUX, signature, sizes).values()]


def transformer():
    stock = FluxTransformer2DModel(**TINY_FLUX.architecture.transformer).eval().requires_grad_(False)
    fill_seeded(stock)
    return stock


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_takes_and_returns_its_signature(component):
    signature = components(TINY_FLUX)[component]
    with torch.no_grad():
        outputs = build(TINY_FLUX, component)(*tensors(component))
    arrays = {tensor.name: output.numpy() for tensor, output in zip(signature.outputs, outputs, strict=True)}
    signature.check_outputs(arrays)
    assert [a.shape for a in arrays.values()] == [tensor.shape(SIZES) for tensor in signature.outputs]


def test_both_sizes_take_the_same_paths():
    for variant in (FLUX, TINY_FLUX):
        assert {name: network(variant, name) for name in COMPONENTS} == NETWORKS[FluxArchitecture]


# -------------------------------------------------------------------------------------------------------------- denoiser
def test_the_denoiser_is_diffusers_transformer_with_the_pipelines_packing():
    latents, timestep, embeddings, pooled, guidance = tensors(DENOISER)
    guidance = guidance * torch.tensor([[1.0], [2.5], [4.0]])  # a scale of its own for each row
    rows, channels, height, width = latents.shape
    with torch.no_grad():
        expected = transformer()(
            hidden_states=FluxPipeline._pack_latents(latents, rows, channels, height, width),
            encoder_hidden_states=embeddings,
            pooled_projections=pooled,
            timestep=timestep[:, 0] / 1000,
            guidance=guidance[:, 0],
            img_ids=FluxPipeline._prepare_latent_image_ids(rows, height // 2, width // 2, "cpu", torch.float32),
            txt_ids=torch.zeros(embeddings.shape[1], 3),
            return_dict=False,
        )[0]
        expected = FluxPipeline._unpack_latents(expected, 8 * height, 8 * width, vae_scale_factor=8)
        (found,) = build(TINY_FLUX, DENOISER)(latents, timestep, embeddings, pooled, guidance)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_rotary_tables_are_diffusers_angles_to_the_bit():
    places = torch.stack((torch.zeros(6, dtype=torch.int64), torch.tensor([0, 1, 2, 60, 126, 127]), torch.arange(6)), dim=1)
    for found, expected in zip(
        RotaryTables((16, 56, 56), 128)(places), FluxPosEmbed(10000, [16, 56, 56])(places.float()), strict=True
    ):
        assert torch.equal(found, expected)


def test_tables_reach_as_far_as_the_largest_picture():
    side = TINY_FLUX.latent_height.max
    _, timestep, embeddings, pooled, guidance = tensors(DENOISER, {**SIZES, "rows": 1})
    with torch.no_grad():
        (velocity,) = build(MICRO_FLUX, DENOISER)(torch.zeros(1, 16, side, 8), timestep, embeddings, pooled, guidance)
    assert velocity.shape == (1, 16, side, 8) and velocity.isfinite().all()


# -------------------------------------------------------------------------------------------------------- half precision
def test_a_wide_linear_layer_gives_results_beyond_half():
    linear = torch.nn.Linear(64, 4)
    torch.nn.init.constant_(linear.weight, 0.5)
    torch.nn.init.zeros_(linear.bias)
    inputs = torch.full((2, 64), 6000.0)
    wide = WideLinear(linear, 64.0).half()
    with torch.no_grad(), HalfArithmetic():
        (value,) = wide(inputs.half()).unique()
        assert torch.nn.functional.linear(inputs.half(), linear.weight.half()).isinf().all()
    assert value.dtype == torch.float32 and abs(value.item() - 192_000.0) < 200


def test_streams_beyond_half_survive_fp16():
    """With larger projections into the text's stream it leaves half's range, as FLUX's own does."""

    def grown():
        network = transformer()
        for block in network.transformer_blocks:
            block.ff_context.net[2].weight *= 1e5
        return network

    inputs = tensors(DENOISER)
    largest = 0.0

    def measure(_layer, _inputs, outputs):
        nonlocal largest
        largest = max(largest, float(outputs[0].abs().max()))

    exact, half = (Denoiser(grown(), 64) for _ in range(2))
    for block in exact.transformer.transformer_blocks:
        block.register_forward_hook(measure)
    with torch.no_grad():
        (expected,) = exact(*inputs)
        to_half(half, NETWORKS[FluxArchitecture][DENOISER].fp32)
        (found,) = half(*inputs)
    assert largest > 65504
    assert (found - expected).abs().max() < 1e-2 * expected.abs().max()


def test_t5s_sums_beyond_half_survive_fp16():
    """With larger output projections their results leave half's range, as T5's own do."""
    exact, half = (build(TINY_FLUX, TEXT_ENCODER) for _ in range(2))
    largest = 0.0

    def measure(_layer, _inputs, output):
        nonlocal largest
        largest = max(largest, float(output.abs().max()))

    for module in (exact, half):
        for block in module.encoder.encoder_2.t5_encoder.block:
            block.ff_layer.wo.weight *= 4e4
    exact.encoder.encoder_2.t5_encoder.block[0].ff_layer.wo.register_forward_hook(measure)
    inputs = tensors(TEXT_ENCODER)
    with torch.no_grad():
        expected = exact(*inputs)
        to_half(half, NETWORKS[FluxArchitecture][TEXT_ENCODER].fp32)
        found = half(*inputs)
    assert largest > 65504
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() < 1e-2 * other.abs().max()


@pytest.mark.parametrize("component", [TEXT_ENCODER, DENOISER])
def test_the_table_names_the_wide_layers_and_no_others(component):
    wide = [f"{start}*" for start in NETWORKS[FluxArchitecture][component].wide]
    module = build(TINY_FLUX, component)
    for name, layer in module.named_modules():
        if hasattr(layer, "weight"):
            assert any(fnmatchcase(f"{name}.weight", start) for start in wide) == isinstance(layer, WideLinear), name


# ------------------------------------------------------------------------------------------------------------- encoders
def encoder():
    made = FaceT5Encoder(TINY_FLUX.architecture)
    fill_seeded(made)
    return made


def test_rows_find_their_faces_and_a_row_without_one_sees_nobody():
    faces = torch.rand(2, 3, 448, 448, generator=torch.Generator().manual_seed(0))
    pooled_ids, input_ids = tensors(TEXT_ENCODER)[:2]
    index = torch.tensor([[1], [-1], [0]])
    with torch.no_grad():
        class_token, *features = build(TINY_FLUX, FACE_ENCODER)(faces)
        found = build(TINY_FLUX, TEXT_ENCODER)(pooled_ids, input_ids, index, *features)
        expected = encoder()(faces[[1, 0, 0]], torch.tensor([True, False, True]), pooled_ids, input_ids)
        swapped = build(TINY_FLUX, TEXT_ENCODER)(pooled_ids, input_ids, torch.tensor([[0], [-1], [1]]), *features)
    torch.testing.assert_close(class_token.norm(dim=-1), torch.ones(2, 1))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=5e-6)
    changed = (swapped[0] - found[0]).abs().amax(dim=(1, 2))
    assert changed[0] > 1e-3 and changed[1] == 0 and changed[2] > 1e-3


# ------------------------------------------------------------------------------------------------------------------ VAE
def test_the_vae_encoder_takes_the_shift_off_and_scales():
    stock = AutoencoderKL(**TINY_FLUX.architecture.vae).eval()
    fill_seeded(stock)
    (picture,) = tensors(VAE_ENCODER)
    with torch.no_grad():
        posterior = stock.encode(picture * 2 - 1).latent_dist
        mean, std = build(TINY_FLUX, VAE_ENCODER)(picture)
    torch.testing.assert_close(mean, (posterior.mean - 0.1159) * 0.3611, rtol=0, atol=1e-6)
    torch.testing.assert_close(std, posterior.std * 0.3611, rtol=0, atol=1e-6)


def test_the_decoder_undoes_scale_and_shift():
    config = TINY_FLUX.architecture.vae
    stock = AutoencoderKL(**config).eval()
    fill_seeded(stock)
    (latents,) = tensors(VAE_DECODER)
    with torch.no_grad():
        decoded = stock.decode(latents / 0.3611 + 0.1159).sample
        (image,) = build(TINY_FLUX, VAE_DECODER)(latents)
    torch.testing.assert_close(image, (decoded / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-6)


# --------------------------------------------------------------------------------------------------------------- export
def test_the_denoisers_graph_takes_every_size_of_whole_tokens():
    """All checks of parity, torch in FP16 and ONNX Runtime on the files, raise where they differ."""
    findings = read_metadata(exported(MICRO_FLUX, DENOISER, "fp16"))["parity"]["findings"]
    assert {finding["check"] for finding in findings} == {
        "torch fp16",
        "onnxruntime",
        "neighbours",
        "attention as one operator",
    }
    assert len({finding["case"] for finding in findings}) == 4


def test_sizes_beyond_the_bounds_are_refused_before_they_reach_the_graph():
    limits = bounds(TINY_FLUX, 8)[DENOISER]
    signature = components(TINY_FLUX)[DENOISER]
    arrays = example_inputs(TINY_FLUX, signature, {"rows": 1, "latent_height": 8, "latent_width": 170})
    with pytest.raises(TensorError, match="latent_width"):
        signature.check_inputs(arrays, limits)
