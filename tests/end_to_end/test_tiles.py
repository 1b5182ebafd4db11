"""The decoder of the tiny variant, served whole and in tiles by a real server."""

from dataclasses import replace

import numpy as np
import pytest
import tritonclient.grpc as grpc
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from export.engine.shapes import Sizes, engine_bounds
from export.paths import onnx_folder
from export.repository.assemble import assemble
from export.repository.render import render
from faceclip_serving.contract.placements import CPU, ORT_CPU, placements
from faceclip_serving.contract.sdxl import SDXL, TINY_SDXL
from faceclip_serving.contract.signatures import VAE_DECODER, VAE_TILE, components
from faceclip_serving.contract.tensors import Range
from faceclip_serving.models.onnx_component import OnnxComponent
from faceclip_serving.sampling.tiling import spans, tiled
from server.process import Ports, TritonServer

TILE = 16
TILED = replace(CPU, vae_tile=TILE)


def parse(text):
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.fixture(scope="module")
def decoder(repository):
    """The component in this process."""
    path = onnx_folder(TINY_SDXL) / "fp32" / VAE_DECODER / ORT_CPU.artifact
    return OnnxComponent(path, components(TINY_SDXL)[VAE_DECODER], ORT_CPU.providers, {}).run


@pytest.fixture(scope="module")
def client(repository, tmp_path_factory):
    """A server whose decoder has tiles, in a folder that a shell would take apart: Triton starts its models by a command line."""
    folder = tmp_path_factory.mktemp("tiles")
    assembled = assemble(TINY_SDXL, TILED, onnx_folder(TINY_SDXL), folder / "mein größtes; $HOME 'Lager'")
    with (
        TritonServer(assembled, Ports.free(), log=folder / "server.log") as server,
        grpc.InferenceServerClient(server.url) as connected,
    ):
        server.wait_ready()
        yield connected, server.keys.parameters


def infer(served, model, latents):
    client, own = served
    wire = grpc.InferInput("latents", list(latents.shape), "FP32")
    wire.set_data_from_numpy(latents)
    return client.infer(model, [wire], parameters=own).as_numpy("image")


def latents(images, height, width):
    return np.random.default_rng(1).standard_normal((images, 4, height, width)).astype(np.float32)


def test_the_server_decodes_in_tiles_what_the_function_does(client, decoder):
    given = latents(2, 24, 20)
    expected = tiled(decoder, TILE, TINY_SDXL.latent_scale)({"latents": given})["image"]
    np.testing.assert_allclose(infer(client, VAE_DECODER, given), expected, atol=1e-5)


def test_away_from_seams_the_served_picture_is_one_tile(client, decoder):
    given, scale = latents(1, 16, 28), TINY_SDXL.latent_scale
    second = spans(28, TILE, scale)[1].start
    alone = decoder({"latents": np.ascontiguousarray(given[..., :TILE])})["image"][..., : second * scale]
    np.testing.assert_allclose(infer(client, VAE_DECODER, given)[..., : second * scale], alone, atol=1e-5)


def test_a_picture_that_fits_a_tile_is_decoded_whole(client, decoder):
    given = latents(2, 16, 9)
    np.testing.assert_allclose(infer(client, VAE_DECODER, given), decoder({"latents": given})["image"], atol=1e-5)


def test_the_component_behind_takes_no_more_than_a_tile(client):
    with pytest.raises(grpc.InferenceServerException, match="axis 'latent_height' must be between 8 and 16, got 24"):
        infer(client, VAE_TILE, latents(1, 24, 16))


@pytest.mark.parametrize("name", placements(TINY_SDXL))
def test_a_tile_adds_a_model_and_changes_no_tensor(name):
    placement = placements(TINY_SDXL)[name]
    whole, cut = (
        {model: parse(text) for model, text in render(TINY_SDXL, replace(placement, vae_tile=tile)).items()}
        for tile in (0, TILE)
    )
    assert cut.keys() - whole.keys() == {VAE_TILE}
    runtime = placement.components[VAE_DECODER].runtime
    assert (cut[VAE_TILE].backend, cut[VAE_TILE].platform) == (runtime.backend, runtime.platform)
    assert cut[VAE_DECODER].backend == "python"
    for config in (cut[VAE_TILE], cut[VAE_DECODER]):
        assert list(config.input) == list(whole[VAE_DECODER].input)
        assert list(config.output) == list(whole[VAE_DECODER].output)
    assert all(cut[model] == config for model, config in whole.items() if model != VAE_DECODER)


def test_the_engine_of_a_tile_is_for_that_tile():
    found = engine_bounds(SDXL, VAE_DECODER, 8, vae_tile=64)
    assert found == {"images": Range(1, 1, 1), "latent_height": Range(32, 64, 64), "latent_width": Range(32, 64, 64)}
    static = engine_bounds(SDXL, VAE_DECODER, 8, Sizes(only=(1152, 864), static=True), vae_tile=64)
    assert static == {axis: Range(64, 64, 64) if "latent" in axis else Range(1, 1, 1) for axis in found}
    assert engine_bounds(SDXL, VAE_DECODER, 8, Sizes(largest=(1024, 1024)), vae_tile=64) == found
