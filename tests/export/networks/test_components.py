"""Components against the networks they wrap: diffusers' own UNet and VAE, and the encoder's reference form."""

from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from export.checkpoint.seeded import fill_seeded
from export.networks.components import NETWORKS, ComponentError, build
from export.networks.faceclip.encoder import FaceCLIPEncoder
from export.networks.sdxl import FaceEncoder
from export.onnx.example_inputs import example_inputs
from export.onnx.wanted import CALIBRATED, PRECISIONS
from faceclip_serving.contract.components import both_sides, components
from faceclip_serving.contract.names import COMPONENTS, DENOISER, FACE_ENCODER, TEXT_ENCODER, VAE_DECODER, VAE_ENCODER
from faceclip_serving.contract.variants.flux import TINY_FLUX
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.contract.variants.table import VARIANTS
from tests.export.micro import MICRO

SIZES = both_sides(TINY_SDXL, {"faces": 2, "rows": 3, "images": 2, "latent_height": 9, "latent_width": 14})


def tensors(signature, sizes=SIZES):
    return [torch.from_numpy(array) for array in example_inputs(TINY_SDXL, signature, sizes).values()]


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_takes_and_returns_its_signature(component):
    signature = components(TINY_SDXL)[component]
    with torch.no_grad():
        outputs = build(TINY_SDXL, component)(*tensors(signature))
    assert isinstance(outputs, tuple)
    arrays = {tensor.name: output.numpy() for tensor, output in zip(signature.outputs, outputs, strict=True)}
    signature.check_outputs(arrays)
    assert [a.shape for a in arrays.values()] == [tensor.shape(SIZES) for tensor in signature.outputs]


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_every_variant_has_a_builder_and_a_tolerance_for_every_component(variant):
    assert NETWORKS[type(variant.architecture)].keys() == set(COMPONENTS)
    for network in NETWORKS[type(variant.architecture)].values():
        assert network.tolerance.keys() == {*PRECISIONS, *CALIBRATED}


def test_an_architecture_without_builders_is_named():
    with pytest.raises(ComponentError, match=r"variant 'tiny-sdxl'.*no builder for str.*export/networks/components.py"):
        build(replace(TINY_SDXL, architecture="unknown"), DENOISER)


@pytest.mark.parametrize("size", [(8, 8), (16, 12), (9, 14), (11, 13)])
def test_the_denoiser_is_diffusers_unet_at_every_size(size):
    stock = UNet2DConditionModel(**MICRO.architecture.unet).eval()
    fill_seeded(stock)
    sizes = {"rows": 2, "latent_height": size[0], "latent_width": size[1]}
    latents, timestep, embeddings, pooled, time_ids = tensors(components(MICRO)[DENOISER], sizes)
    added = {"text_embeds": pooled, "time_ids": time_ids}
    with torch.no_grad():
        expected = stock(latents, timestep[:, 0], embeddings, added_cond_kwargs=added).sample
        (found,) = build(MICRO, DENOISER)(latents, timestep, embeddings, pooled, time_ids)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert expected.abs().max() > 0.1


@pytest.mark.parametrize("shift", [None, 0.25])
def test_the_decoder_undoes_the_latent_scaling_and_ends_in_unit_range(shift):
    architecture = replace(MICRO.architecture, vae={**MICRO.architecture.vae, "shift_factor": shift})
    stock = AutoencoderKL(**architecture.vae).eval()
    fill_seeded(stock)
    (latents,) = tensors(components(MICRO)[VAE_DECODER])
    with torch.no_grad():
        decoded = stock.decode(latents / stock.config.scaling_factor + (shift or 0.0)).sample
        (image,) = build(replace(MICRO, architecture=architecture), VAE_DECODER)(latents)
    torch.testing.assert_close(image, (decoded / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-6)
    assert 0.0 <= image.min() < 0.2 and 0.8 < image.max() <= 1.0


@pytest.mark.parametrize("quant_conv", [True, False])
@pytest.mark.parametrize("shift", [None, 0.25])
def test_the_vae_encoder_gives_diffusers_distribution_scaled_as_its_pipelines_do(shift, quant_conv):
    config = {**MICRO.architecture.vae, "shift_factor": shift, "use_quant_conv": quant_conv}
    architecture = replace(MICRO.architecture, vae=config)
    stock = AutoencoderKL(**architecture.vae).eval()
    fill_seeded(stock)
    (picture,) = tensors(components(MICRO)[VAE_ENCODER])
    with torch.no_grad():
        posterior = stock.encode(picture * 2 - 1).latent_dist
        mean, std = build(replace(MICRO, architecture=architecture), VAE_ENCODER)(picture)
    scale = stock.config.scaling_factor
    torch.testing.assert_close(mean, (posterior.mean - (shift or 0.0)) * scale, rtol=0, atol=1e-6)
    torch.testing.assert_close(std, posterior.std * scale, rtol=0, atol=1e-6)
    assert std.min() > 0 and mean.std() > 0.01


@pytest.mark.parametrize("variant", [TINY_SDXL, TINY_FLUX], ids=lambda variant: variant.name)
def test_encoder_and_decoder_of_a_vae_are_each_others_in_scale(variant):
    """What the decoder is given back after the encoder's scaling is what the VAE itself calls the mean."""
    stock = AutoencoderKL(**variant.architecture.vae).eval()
    fill_seeded(stock)
    picture = torch.from_numpy(example_inputs(variant, components(variant)[VAE_ENCODER], SIZES)["picture"])
    with torch.no_grad():
        expected = stock.decode(stock.encode(picture * 2 - 1).latent_dist.mean).sample
        (found,) = build(variant, VAE_DECODER)(build(variant, VAE_ENCODER)(picture)[0])
    torch.testing.assert_close(found, (expected / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-5)


def encoder() -> FaceCLIPEncoder:
    made = FaceCLIPEncoder(MICRO.architecture, MICRO.tokens[0])
    fill_seeded(made)
    return made


def require_alike(found, expected):
    """To 16 roundings of the largest value: the same sums, which other batches add up in another order. Measured: 5."""
    for one, other in zip(found, expected, strict=True):
        rounding = torch.finfo(torch.float32).eps * float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=16 * rounding)


def test_a_row_without_a_face_equals_the_reference_without_one():
    ids, _, class_token, patch_token = tensors(components(MICRO)[TEXT_ENCODER])
    nobody = torch.full((3, 1), -1)
    with torch.no_grad():
        found = build(MICRO, TEXT_ENCODER)(ids, nobody, class_token, patch_token)
        expected = encoder()(torch.rand(3, 3, 448, 448), torch.zeros(3, dtype=torch.bool), ids)
    require_alike(found, expected)


def test_rows_find_their_faces_by_index():
    faces = torch.rand(2, 3, 448, 448, generator=torch.Generator().manual_seed(0))
    ids = tensors(components(MICRO)[TEXT_ENCODER])[0]
    index = torch.tensor([[1], [-1], [0]])
    with torch.no_grad():
        features = build(MICRO, FACE_ENCODER)(faces)
        found = build(MICRO, TEXT_ENCODER)(ids, index, *features)
        expected = encoder()(faces[[1, 0, 0]], torch.tensor([True, False, True]), ids)
    require_alike(found, expected)


def test_equal_face_encoders_run_once_and_different_ones_each():
    faces = torch.rand(1, 3, 448, 448)
    different, equal = encoder(), encoder()
    first, second = equal.branches
    second.face_encoder.load_state_dict(first.face_encoder.state_dict())
    with torch.no_grad():
        expected = equal.encode_faces(faces, shared=False)
        one, two = FaceEncoder(equal), FaceEncoder(different)
        found = one(faces)
    assert one.notes == {"shared_face_encoder": True} and two.notes == {"shared_face_encoder": False}
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert 2 * sum(p.numel() for p in one.parameters()) == sum(p.numel() for p in two.parameters())
