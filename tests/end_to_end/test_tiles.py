"""Pictures of the tiny variant, decoded whole and in tiles by a real server."""

from dataclasses import replace

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from benchmarks.measure.inprocess import load
from benchmarks.measure.pictures import decoded, picture_psnr_db
from export.engine.shapes import Sizes, engine_bounds
from export.paths import onnx_folder
from export.repository.assemble import assemble
from export.repository.render import render
from faceclip import FaceCLIPPipeline
from faceclip_serving.contract.names import SAMPLER, VAE_DECODER, VAE_ENCODER
from faceclip_serving.contract.placements import CPU, placements
from faceclip_serving.contract.tensors import Range, bytes_tensor
from faceclip_serving.contract.variants.sdxl import SDXL, TINY_SDXL
from server.process import Ports, TritonServer

SAME_DB = 60
TILE = 16
TILED = replace(CPU, vae_tile=TILE)


def parse(text):
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.fixture(scope="module")
def tiles(repository, tmp_path_factory):
    """A repository whose decoder has tiles, in a folder that a shell would take apart: Triton starts its models by a command line."""
    folder = tmp_path_factory.mktemp("tiles")
    return assemble(TINY_SDXL, TILED, onnx_folder(TINY_SDXL), folder / "mein größtes; $HOME 'Lager'")


@pytest.fixture(scope="module")
def served(tiles, tmp_path_factory):
    """A pipeline of its server."""
    log = tmp_path_factory.mktemp("served") / "server.log"
    with TritonServer(tiles, Ports.free(), log=log, settings=["marks=none"]) as server:
        server.wait_ready()
        with FaceCLIPPipeline.from_pretrained(server.url) as pipe:
            yield pipe
        server.stop(0)


@pytest.mark.proof
@pytest.mark.parametrize(("height", "width"), [(192, 160), (128, 72)], ids=["in tiles", "whole"])
def test_the_server_decodes_in_tiles_what_the_functions_do(served, tiles, repository, height, width):
    asked = {"prompt": "a portrait", "seed": 3, "num_inference_steps": 2, "height": height, "width": width}
    (picture,) = served(**asked).images
    numbers = {"seed": np.int64, "num_inference_steps": np.int32, "height": np.int32, "width": np.int32}
    arrays = {name: np.array([asked[name]], dtype) for name, dtype in numbers.items()}
    arrays["prompt"] = bytes_tensor([asked["prompt"].encode()])
    cut, whole = (
        decoded(load(TINY_SDXL, placement, folder)(arrays)["images"][0])
        for placement, folder in ((TILED, tiles), (CPU, repository))
    )
    assert picture_psnr_db(np.asarray(picture), cut) > SAME_DB
    assert (picture_psnr_db(cut, whole) > SAME_DB) == (max(height, width) <= TILE * TINY_SDXL.latent_scale)


@pytest.mark.parametrize("name", placements(TINY_SDXL))
def test_a_tile_is_told_to_the_sampler_and_changes_nothing_else(name):
    placement = placements(TINY_SDXL)[name]
    whole, cut = (render(TINY_SDXL, replace(placement, vae_tile=tile)) for tile in (0, TILE))
    assert {model for model in cut if cut[model] != whole[model]} == {SAMPLER} and cut.keys() == whole.keys()
    assert parse(cut[SAMPLER]).parameters["vae_tile"].string_value == str(TILE)


def test_the_engine_of_a_tile_is_for_that_tile():
    found = engine_bounds(SDXL, VAE_DECODER, 8, vae_tile=64)
    assert found == {"images": Range(1, 1, 1), "latent_height": Range(32, 64, 64), "latent_width": Range(32, 64, 64)}
    static = engine_bounds(SDXL, VAE_DECODER, 8, Sizes(only=(1152, 864), static=True), vae_tile=64)
    assert static == {axis: Range(64, 64, 64) if "latent" in axis else Range(1, 1, 1) for axis in found}
    assert engine_bounds(SDXL, VAE_DECODER, 8, Sizes(largest=(1024, 1024)), vae_tile=64) == found
    found = engine_bounds(SDXL, VAE_ENCODER, 8, vae_tile=64)
    assert found == {"images": Range(1, 1, 1), "height": Range(256, 512, 512), "width": Range(256, 512, 512)}
