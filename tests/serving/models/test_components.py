"""The networks of a placement, opened over a repository's own files."""

from dataclasses import replace

import numpy as np
import pytest

from export.onnx.example_inputs import example_inputs
from faceclip_serving.contract.components import both_sides, bounds, components, usual_sizes
from faceclip_serving.contract.names import COMPONENTS, DENOISER, FACE_ENCODER, TEXT_ENCODER, VAE_DECODER, VAE_ENCODER
from faceclip_serving.contract.placements import CPU, placement_of
from faceclip_serving.contract.tensors import TensorError
from faceclip_serving.contract.variants.architectures import FACE_SIZE
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.face.alignment import as_planes
from faceclip_serving.models.components import Components
from faceclip_serving.models.onnx_component import OnnxComponent
from faceclip_serving.sampling.networks import encode_picture
from faceclip_serving.sampling.tiling import tiled, tiled_encoder

SIZES = both_sides(TINY_SDXL, {"faces": 1, "rows": 2, "images": 1, "latent_height": 24, "latent_width": 20})

FARTHEST_TILED = 0.05
"""Mean square difference of latents by tiles of 16 cells, as a share of their variance; these seeded weights gave 0.029."""


CROPS = np.random.default_rng(1).integers(0, 256, (1, FACE_SIZE, FACE_SIZE, 3), dtype=np.uint8)


def given(name):
    if name == FACE_ENCODER:
        return {"aligned_faces": np.stack([as_planes(crop) for crop in CROPS])}
    return example_inputs(TINY_SDXL, components(TINY_SDXL)[name], SIZES)


def sent(name):
    """The same as it comes from another model."""
    return {"face_crops": CROPS} if name == FACE_ENCODER else given(name)


def opened(repository, placement=CPU, remembered_bytes=0, call=None):
    return Components(TINY_SDXL, placement, lambda name: repository / CPU.folder(name), remembered_bytes, call)


@pytest.fixture(scope="module")
def networks(repository):
    found = opened(repository)
    yield found.networks
    found.close()


@pytest.fixture(scope="module")
def cut(repository):
    """The networks of a placement with tiles of 16 cells."""
    found = opened(repository, replace(CPU, vae_tile=16))
    yield found.networks
    found.close()


@pytest.mark.parametrize("name", COMPONENTS)
def test_every_network_is_the_components_own(repository, networks, name):
    graph = repository / CPU.folder(name) / "model.onnx"
    alone = OnnxComponent(graph, components(TINY_SDXL)[name], CPU.providers(name), {}).run(given(name))
    found = networks[name](sent(name))
    assert found.keys() == alone.keys()
    for key, array in alone.items():
        np.testing.assert_allclose(found[key], array, atol=1e-5)


def test_pictures_are_decoded_in_the_placements_tiles_and_no_larger_ones(networks, cut):
    by_hand = tiled(networks[VAE_DECODER], 16, TINY_SDXL.latent_scale)
    found, expected = (decode(given(VAE_DECODER))["image"] for decode in (cut[VAE_DECODER], by_hand))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_picture_in_the_placements_tiles_has_nearly_the_latents_of_the_whole_one(networks, cut):
    picture = given(VAE_ENCODER)["picture"]
    by_hand = tiled_encoder(networks[VAE_ENCODER], 16, TINY_SDXL.latent_scale)({"picture": picture})
    for found, tile_by_tile, whole in zip(
        encode_picture(cut, picture), by_hand.values(), encode_picture(networks, picture), strict=True
    ):
        assert found.shape == whole.shape == (1, TINY_SDXL.latent_channels, 24, 20)
        np.testing.assert_allclose(found, tile_by_tile, atol=1e-5)
        assert np.square(found - whole).mean() < FARTHEST_TILED * whole.var(), "norms see a tile in place of the picture"


def test_an_encoder_on_the_cpu_is_not_in_memory_before_a_picture_comes(repository, monkeypatch):
    sessions = []

    def opened_session(path, *rest, **options):
        sessions.append(path.parent.name)
        return OnnxComponent(path, *rest, **options)

    monkeypatch.setattr("faceclip_serving.models.onnx_component.OnnxComponent", opened_session)
    found = opened(repository)
    for name in COMPONENTS:
        assert sessions.count(name) == 1
    for name in COMPONENTS:
        found.networks[name](sent(name))
    assert sessions.count(VAE_ENCODER) == 2 and len(sessions) == len(COMPONENTS) + 1
    found.close()


def test_where_first_calls_are_slow_every_network_has_had_the_usual_one(repository, monkeypatch):
    """Alone, not in full calls: what nobody may ask for takes no memory."""
    warmed = []

    class Watched(OnnxComponent):
        def warm_up(self, sizes):
            super().warm_up(sizes)
            warmed.append(dict(sizes))

    monkeypatch.setattr("faceclip_serving.models.onnx_component.OnnxComponent", Watched)
    opened(repository)
    assert not warmed
    slow = {name: replace(each, runtime=replace(each.runtime, slow_first_call=True)) for name, each in CPU.components.items()}
    opened(repository, replace(CPU, components=slow))
    limits = bounds(TINY_SDXL, CPU.denoiser_rows)
    assert warmed == [usual_sizes(TINY_SDXL, limits[name])[0] for name in COMPONENTS]


def test_encodings_are_remembered_as_far_as_the_setting_says(repository):
    asked = []

    def call(name, arrays):
        asked.append(name)
        sizes = {"rows": len(arrays["face_index"])}
        return {tensor.name: np.zeros(tensor.shape(sizes), np.float32) for tensor in components(TINY_SDXL)[name].outputs}

    placement = placement_of(TINY_SDXL, "datacenter")
    for remembered, calls in ((2**20, 1), (0, 2)):
        asked.clear()
        encode = opened(repository, placement, remembered, call).networks[TEXT_ENCODER]
        for _ in range(2):
            encode(given(TEXT_ENCODER))
        assert asked == [TEXT_ENCODER] * calls


def test_what_a_backend_of_triton_runs_is_called_and_the_rest_is_not(repository):
    asked = []
    networks = opened(
        repository, placement_of(TINY_SDXL, "datacenter"), 0, lambda name, arrays: asked.append(name) or {}
    ).networks
    for name in COMPONENTS:
        if name not in ("face_encoder", "text_encoder", VAE_DECODER):
            networks[name](sent(name))
    assert asked == [VAE_ENCODER, DENOISER]
    opened(repository, call=lambda name, arrays: pytest.fail("it is run here")).networks[DENOISER](given(DENOISER))


def test_a_call_beyond_the_placements_bounds_is_refused_by_name(networks):
    rows = {**SIZES, "rows": CPU.denoiser_rows + 1}
    with pytest.raises(TensorError, match="denoiser input: tensor 'latents': axis 'rows' must be between 1 and 8, got 9"):
        networks[DENOISER](example_inputs(TINY_SDXL, components(TINY_SDXL)[DENOISER], rows))


def test_the_networks_without_memory_compute_anew(repository):
    found = Components(TINY_SDXL, CPU, lambda name: repository / CPU.folder(name), 2**24, remembered_s=60.0)
    given_rows, memory = given(TEXT_ENCODER), found.networks[TEXT_ENCODER]
    plain = found.forgetful[TEXT_ENCODER](given_rows)
    assert len(memory) == 0
    np.testing.assert_allclose(memory(given_rows)["pooled"], plain["pooled"], atol=1e-5)
    assert len(memory) > 0
    found.close()
