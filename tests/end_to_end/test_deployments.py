"""Two families in one server under different names: each answers as it does alone."""

import io
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from benchmarks.measure.example import PHOTO
from benchmarks.measure.inprocess import load
from benchmarks.measure.pictures import picture_psnr_db
from export.repository.deployments import DeploymentError, check_name, install, is_current
from export.repository.from_nothing import build_repository
from faceclip import FaceCLIPPipeline
from faceclip.status import server_status
from faceclip_serving.contract.names import CANCEL, ENSEMBLE, SAMPLER, STREAM, UNARY, model_name
from faceclip_serving.contract.operations import Status
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.variants.flux import TINY_FLUX
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from server.control import ControlError, ask, drain, resume
from server.models import model_processes
from server.probe import deployments
from server.process import Ports, TritonServer
from server.supervise import drain_before_stop
from server.watch import Watch
from tests.serving.contract.test_parameters import raw

from .callers import places

CALL = {"seed": 5, "num_inference_steps": 3, "height": 128, "width": 96}


@pytest.fixture(scope="module")
def both(repository, tmp_path_factory):
    folder = tmp_path_factory.mktemp("both") / "repository"
    build_repository(TINY_SDXL, CPU, destination=folder)
    build_repository(TINY_FLUX, CPU, deployment="flux", destination=folder)
    with TritonServer(folder, Ports.free(), log=folder.parent / "server.log", settings=["marks=none"]) as server:
        assert {name: details["variant"] for name, details in server.wait_ready().items()} == {
            "faceclip": "tiny-sdxl",
            "flux": "tiny-flux",
        }
        yield server
        server.stop(0)


@pytest.mark.proof
def test_each_answers_at_the_same_time_as_it_does_alone(both, pipe):
    with (
        FaceCLIPPipeline.from_pretrained(both.url) as sdxl,
        FaceCLIPPipeline.from_pretrained(both.url, model="flux") as flux,
        ThreadPoolExecutor(2) as callers,
    ):
        assert (sdxl.config.variant, flux.config.variant) == ("tiny-sdxl", "tiny-flux")
        assert (sdxl.defaults["guidance_scale"], flux.defaults["guidance_scale"]) == (5.0, 3.5)
        together = callers.map(lambda one: one("a portrait", face_image=PHOTO, **CALL), (sdxl, flux))
        pictures = [np.asarray(result.images[0]) for result in together]
        *_, streamed = flux.stream("a portrait", face_image=PHOTO, **CALL)
    assert np.array_equal(pictures[1], np.asarray(streamed.images[0]))
    alone = np.asarray(pipe("a portrait", face_image=PHOTO, **CALL).images[0])
    assert picture_psnr_db(pictures[0], alone) >= 60
    arrays = raw(**CALL, prompt="a portrait")
    arrays["face_images"] = np.array([PHOTO.read_bytes()], dtype=object)
    single = build_repository(TINY_FLUX, CPU)
    in_process = load(TINY_FLUX, CPU, single)(arrays)["images"][0]
    assert picture_psnr_db(pictures[1], np.asarray(Image.open(io.BytesIO(in_process)))) >= 60
    assert picture_psnr_db(pictures[0], pictures[1]) < 45


def test_orders_reach_every_sampler_and_clients_see_both(both):
    assert deployments(both.connection) == ["faceclip", "flux"]
    with FaceCLIPPipeline.from_pretrained(both.url, model="flux") as flux:
        offered = server_status(flux._transport).offered
        assert {served.model: served.variant for served in offered} == {"faceclip": "tiny-sdxl", "flux": "tiny-flux"}
        with places(both.connection, 1), places(both.connection, 1, "flux"):
            assert drain(both.connection, both.interfaces, timeout_s=0).in_flight == 2
        assert not drain(both.connection, both.interfaces, timeout_s=10)
        resume(both.connection, both.interfaces)
        assert flux("a portrait", num_inference_steps=1).images


@pytest.mark.proof
def test_a_sampler_that_is_silent_is_told_and_cuts_nothing_of_the_others(both, capsys):
    """A stop gives its whole time to what is in flight in the other one, and to what the silent one may have."""
    with places(both.connection, 1, "flux"):
        (silent,) = [pid for pid, model in model_processes(both.pid).items() if model == "sampler"]
        os.kill(silent, signal.SIGSTOP)
        try:
            drain_before_stop(both, Watch(both), 4)
            with pytest.raises(ControlError, match="the sampler of 'faceclip' does not answer") as caught:
                resume(both.connection, both.interfaces)
            assert "flux" not in str(caught.value) and not ask(both.connection, Status(), "flux")["draining"]
        finally:
            both.kill()  # once a model's process was silent, Triton 2.51 may end: the last test of this server
    said = capsys.readouterr().err
    for line in (
        "draining: 1 request is in flight; the sampler of 'faceclip' does not answer (",
        "and this is cut: 1 request is in",
    ):
        assert line in said


def test_names_of_models():
    roles = (UNARY, STREAM, CANCEL, ENSEMBLE, SAMPLER)
    assert [model_name(role) for role in roles] == ["faceclip", "faceclip_stream", "faceclip_cancel", "ensemble", "sampler"]
    assert [model_name(role, "flux") for role in roles] == [
        "flux", "flux_stream", "flux_cancel", "flux_ensemble", "flux_sampler",
    ]  # fmt: skip
    for bad in ("", "Flux", "a-b", "1x"):
        with pytest.raises(DeploymentError, match="name: expected lower-case"):
            check_name(bad)


def test_a_deployment_is_replaced_alone_and_takes_no_other_ones_models(tmp_path):
    repository = tmp_path / "repository"

    def put(deployment, *models, identity="1"):
        scratch = tmp_path / "scratch"
        for model in models:
            (scratch / model).mkdir(parents=True)
            (scratch / model / "config.pbtxt").write_text(identity)
        install(scratch, repository, deployment, identity)

    put("faceclip", "faceclip", "sampler")
    (repository / "somebody_elses").mkdir()
    put("flux", "flux", "flux_sampler", "flux_more")
    put("flux", "flux", "flux_sampler", identity="2")
    assert sorted(path.name for path in repository.iterdir() if path.is_dir()) == [
        "faceclip",
        "flux",
        "flux_sampler",
        "sampler",
        "somebody_elses",
    ]
    assert is_current(repository, "faceclip", "1") and is_current(repository, "flux", "2")
    assert not is_current(repository, "flux", "1")
    with pytest.raises(DeploymentError, match=r"'sampler' needs models \['sampler'\], which deployment 'faceclip'"):
        put("sampler", "sampler")
    (repository / "flux").rename(tmp_path / "gone")
    assert not is_current(repository, "flux", "2")
    assert json.loads((repository / "deployments.json").read_text()).keys() == {"faceclip", "flux"}
