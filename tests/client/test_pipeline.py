"""The blocking pipeline, over real gRPC."""

from __future__ import annotations

import io
import signal
import socket
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from faceclip import (
    DeadlineExceededError,
    FaceCLIPOutput,
    FaceCLIPPipeline,
    InvalidRequestError,
    ModelNotFoundError,
    Progress,
    ProtocolError,
    ServerBusyError,
    ServerError,
    ServerUnavailableError,
)
from faceclip.address import Address, parse_address
from faceclip.grpc_transport import GrpcTransport

from .triton_double import VARIANT, TritonDouble, wait_until


def test_a_picture_from_a_photo_and_a_prompt(pipe: FaceCLIPPipeline, server: TritonDouble, photo: bytes) -> None:
    result = pipe("a lighthouse", face_image=photo, seed=7, num_images_per_prompt=2, height=64, width=72, output_format="JPEG")
    assert [image.size for image in result.images] == [(72, 64)] * 2
    assert result.seeds == [7, 8]
    assert [made.format for made in result.provenance] == ["JPEG", "JPEG"]
    assert result.details["faces"] == [[30, 40]]
    assert server.received[0]["face_images"][0] == photo
    np.testing.assert_array_equal(
        pipe(prompt="a lighthouse", seed=8, output_type="np").images, pipe("b", seed=8, output_type="np").images
    )


def test_defaults_and_the_seed_come_from_the_server(pipe: FaceCLIPPipeline) -> None:
    assert pipe.defaults["num_inference_steps"] == VARIANT.defaults.num_inference_steps
    assert (pipe.config.limits["height"]["min"], pipe.config.limits["height"]["max"]) == VARIANT.limits.height
    obeyed = pipe("a lighthouse").details["parameters"]
    assert obeyed["height"] == VARIANT.defaults.height
    result = pipe("a lighthouse")
    np.testing.assert_array_equal(
        np.asarray(pipe("again", seed=result.seed).images[0]),
        np.asarray(result.images[0]),
        "the reported seed repeats the picture",
    )


def test_how_pictures_travel_is_not_the_callers_business(pipe: FaceCLIPPipeline) -> None:
    with pytest.raises(TypeError, match="unknown parameter 'image_encoding'"):
        pipe("a lighthouse", image_encoding="base64")  # type: ignore[call-arg]
    assert "image_encoding" not in pipe.config.inputs


def test_variants_and_models_are_looked_up(server: TritonDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACECLIP_URL", server.address)
    for pipe in (FaceCLIPPipeline.from_pretrained(VARIANT.name), FaceCLIPPipeline.from_pretrained(model="faceclip")):
        with pipe:
            assert (pipe.config.model, pipe.config.variant) == ("faceclip", VARIANT.name)
            assert server.address in repr(pipe)
    with pytest.raises(ModelNotFoundError, match=rf"no variant 'flux'; it offers 'faceclip' \(variant {VARIANT.name}\)"):
        FaceCLIPPipeline.from_pretrained("flux")
    with pytest.raises(ModelNotFoundError, match="no model 'other'"):
        FaceCLIPPipeline.from_pretrained(model="other")
    with pytest.raises(InvalidRequestError, match="model 'prepare'"):
        FaceCLIPPipeline.from_pretrained(model="prepare")
    server.models["small"] = server.models.pop("faceclip")
    server.models["small"].name = "small"
    with FaceCLIPPipeline.from_pretrained(server.address) as pipe:
        assert pipe.config.model == "small"


def test_the_servers_refusal_is_told_in_its_own_words(pipe: FaceCLIPPipeline) -> None:
    with pytest.raises(
        InvalidRequestError, match=r"^height: expected a multiple of 8 from 64 to 1344 pixels, got 7; try 64$"
    ) as raised:
        pipe("a lighthouse", height=7)
    assert isinstance(raised.value.__cause__, grpc.RpcError)
    with pytest.raises(InvalidRequestError, match=r"^guidance_scale: .* got nan$"):
        pipe("a lighthouse", guidance_scale=float("nan"))
    with pytest.raises(InvalidRequestError, match=r"^prompt: a text is required"):
        pipe("  ")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("INTERNAL CUDA out of memory", ServerError),
        ("DEADLINE_EXCEEDED Deadline Exceeded", DeadlineExceededError),
        ("UNIMPLEMENTED no such method", ProtocolError),
        ("PERMISSION_DENIED no", ServerError),
    ],
)
def test_statuses_on_the_wire_become_errors(
    pipe: FaceCLIPPipeline, server: TritonDouble, status: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        pipe("status", negative_prompt=status, retries=3)
    assert len(server.received) == 1, "none of these may be sent again"


def test_a_crash_of_the_server_is_told_without_its_traceback(pipe: FaceCLIPPipeline) -> None:
    for call in (lambda: pipe("crash"), lambda: list(pipe.stream("crash"))):
        with pytest.raises(ServerError, match=r"^RuntimeError: boom$"):
            call()


@pytest.mark.parametrize("prompt", ["half an answer", "not a picture"])
def test_a_broken_answer_is_a_protocol_error(pipe: FaceCLIPPipeline, prompt: str) -> None:
    with pytest.raises(ProtocolError):
        pipe(prompt)
    with pytest.raises(ProtocolError):
        list(pipe.stream(prompt))


def test_a_call_ends_at_its_time_limit(pipe: FaceCLIPPipeline) -> None:
    with pytest.raises(DeadlineExceededError, match=r"within 0\.3 s"):
        pipe("slow", timeout_s=0.3)
    with pytest.raises(DeadlineExceededError):
        list(pipe.stream("slow", timeout_s=0.3))


def test_the_time_limit_is_told_to_the_models(pipe: FaceCLIPPipeline, server: TritonDouble) -> None:
    pipe("a lighthouse", timeout_s=5)
    list(pipe.stream("a lighthouse", timeout_s=5))
    assert all(4_000_000 < timeout_us <= 5_000_000 for timeout_us in server.timeouts_us)
    pipe("a lighthouse", timeout_s=None)
    assert server.timeouts_us[2:] == [0]


def test_a_busy_server_is_asked_again_only_on_request(pipe: FaceCLIPPipeline, server: TritonDouble) -> None:
    server.busy_calls = 1
    with pytest.raises(ServerBusyError, match=r"^server busy: 4 requests in flight") as raised:
        pipe("a lighthouse", retries=0)
    assert raised.value.retry_after_s == 0.2
    server.busy_calls = 2
    assert pipe("a lighthouse", retries=2).images
    server.busy_calls = 1
    assert isinstance(list(pipe.stream("a lighthouse", retries=1))[-1], FaceCLIPOutput)
    server.busy_calls = 2
    with pytest.raises(ServerBusyError):
        list(pipe.stream("a lighthouse", retries=1))


def test_no_server_is_an_error_after_a_few_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faceclip.retry.FIRST_DELAY_S", 0.01)
    with socket.socket() as taken:  # bound, not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ServerUnavailableError, match=f"cannot reach {address}.*refused.*is the server running there"):
            FaceCLIPPipeline.from_pretrained(address)


def test_a_server_that_starts_meanwhile_is_reached() -> None:
    first = TritonDouble()
    with FaceCLIPPipeline.from_pretrained(first.address) as pipe:
        first.stop()
        started: list[TritonDouble] = []
        timer = threading.Timer(0.6, lambda: started.append(TritonDouble(port=int(first.address.rpartition(":")[2]))))
        timer.start()
        try:
            assert pipe("a lighthouse").images
            assert len(started[0].received) == 1
        finally:
            timer.join()
            started[0].stop()


def test_a_stream_tells_each_step_and_then_the_result(pipe: FaceCLIPPipeline) -> None:
    *steps, result = pipe.stream("a lighthouse", num_inference_steps=3, seed=5)
    assert steps == [Progress(1, 3, 999.0), Progress(2, 3, 998.0), Progress(3, 3, 997.0)]
    assert isinstance(result, FaceCLIPOutput)
    np.testing.assert_array_equal(np.asarray(result.images[0]), np.asarray(pipe("a lighthouse", seed=5).images[0]))


def test_the_callback_is_called_as_in_diffusers(pipe: FaceCLIPPipeline) -> None:
    calls: list[tuple[Any, ...]] = []
    result = pipe("a lighthouse", num_inference_steps=2, preview=True, callback_on_step_end=lambda *args: calls.append(args))
    assert result.images
    assert [(who is pipe, step, timestep) for who, step, timestep, _ in calls] == [(True, 0, 999.0), (True, 1, 998.0)]
    assert [given["preview"].size for *_, given in calls] == [(8, 8)] * 2
    assert calls[1][3]["progress"].step == 2


def test_a_callback_stops_the_run_as_in_diffusers(pipe: FaceCLIPPipeline, server: TritonDouble) -> None:
    def stop(who: Any, step: int, timestep: float, given: Any) -> Any:
        who._interrupt = step == 1
        return given

    result = pipe("a lighthouse", num_inference_steps=6, callback_on_step_end=stop)
    assert result.images == [] and result.warnings == ["the callback stopped the run after step 2 of 6: there are no pictures"]
    assert pipe.interrupt and wait_until(server.cancelled.is_set)
    assert len(pipe("a", num_inference_steps=6, output_type="np", callback_on_step_end=stop).images) == 0
    assert pipe("a lighthouse", num_inference_steps=2, callback_on_step_end=lambda *_: {}).images


def test_what_comes_after_the_end_is_told(server: TritonDouble) -> None:
    pipe = FaceCLIPPipeline.from_pretrained(server.address)
    pipe.close()
    with pytest.raises(InvalidRequestError, match="was closed; make another pipeline"):
        pipe("a lighthouse")
    with pytest.raises(InvalidRequestError, match="was closed; make another pipeline"):
        list(pipe.stream("a lighthouse"))


@pytest.mark.parametrize("timeout_s", [1e10, 1e13])
def test_a_limit_that_no_clock_holds_is_refused_with_the_cure(pipe: FaceCLIPPipeline, timeout_s: float) -> None:
    with pytest.raises(InvalidRequestError, match="None for no limit"):
        pipe("a lighthouse", timeout_s=timeout_s)
    assert pipe("a lighthouse", timeout_s=1e8).images and pipe("a lighthouse", timeout_s=None).images


def test_a_port_that_speaks_http_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faceclip.retry.FIRST_DELAY_S", 0.01)
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        try:
            with pytest.raises(ServerUnavailableError, match=r"does it speak gRPC.* usually 8001"):
                FaceCLIPPipeline.from_pretrained(f"127.0.0.1:{http.server_port}")
        finally:
            http.shutdown()


def test_a_word_that_may_have_been_a_host_is_told(server: TritonDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACECLIP_URL", server.address)
    with pytest.raises(ModelNotFoundError, match="if 'gpu-box' is a host, write 'gpu-box:8001'"):
        FaceCLIPPipeline.from_pretrained("gpu-box")
    monkeypatch.setattr("faceclip.retry.FIRST_DELAY_S", 0.01)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("FACECLIP_URL", f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(ServerUnavailableError, match=r"'gpu-box' was taken for a variant's name.*'gpu-box:8001'"):
            FaceCLIPPipeline.from_pretrained("gpu-box")


def test_a_proxy_of_the_environment_is_named_and_never_used_for_this_machine(
    server: TritonDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faceclip.retry.FIRST_DELAY_S", 0.01)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with FaceCLIPPipeline.from_pretrained(server.address) as pipe:
        assert pipe("a lighthouse").images
    with pytest.raises(ServerUnavailableError, match=r"through the environment's http_proxy=http://127.0.0.1:9.*no_proxy"):
        FaceCLIPPipeline.from_pretrained("10.255.255.1:8001")


class SeveralServers(Address):
    """What a name of several addresses resolves to; no name of this machine has several."""

    balanced = True


def test_calls_go_round_all_servers_of_a_name() -> None:
    servers = [TritonDouble(), TritonDouble()]
    target = f"ipv4:{','.join(server.address for server in servers)}"
    try:
        with FaceCLIPPipeline.from_pretrained(transport=GrpcTransport(SeveralServers(target, False))) as pipe:
            time.sleep(0.3)  # until the second is connected as well
            for _ in range(8):
                pipe("a lighthouse")
        assert min(len(server.received) for server in servers) >= 3
    finally:
        for server in servers:
            server.stop()


def test_a_dns_address_is_reached(server: TritonDouble) -> None:
    assert parse_address("dns:///localhost:1").balanced and not parse_address("localhost:1").balanced
    with FaceCLIPPipeline.from_pretrained(f"dns:///localhost:{server.address.rpartition(':')[2]}") as pipe:
        assert pipe("a lighthouse").images


def test_steps_need_a_streaming_model(unary_server: TritonDouble) -> None:
    with FaceCLIPPipeline.from_pretrained(unary_server.address) as pipe:
        assert not pipe.can_stream()
        assert pipe("a lighthouse").images
        for call in (lambda: pipe.stream("x"), lambda: pipe("x", callback_on_step_end=print)):
            with pytest.raises(ModelNotFoundError, match="no streaming model 'faceclip_stream'"):
                call()
    assert len(unary_server.received) == 1


def test_a_wrong_argument_of_a_stream_is_told_before_it_starts(pipe: FaceCLIPPipeline) -> None:
    with pytest.raises(TypeError, match="num_inference_steps"):
        pipe.stream("x", num_inference_step=3)  # type: ignore[call-arg]


def test_closing_a_stream_cancels_it_on_the_server(pipe: FaceCLIPPipeline, server: TritonDouble) -> None:
    events = pipe.stream("slow")
    assert next(events) == Progress(1, VARIANT.defaults.num_inference_steps, 999.0)
    assert not server.cancelled.is_set()
    events.close()
    assert server.cancelled.wait(5)


def test_an_interrupt_cancels_a_unary_call(pipe: FaceCLIPPipeline, server: TritonDouble) -> None:
    def interrupt() -> None:
        server.steps_sent.wait(5)
        time.sleep(0.3)  # until the caller waits for the answer
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt) as raised:
        pipe("slow")
    assert server.cancelled.wait(5)
    assert raised.value.__traceback__ is not None, "the call's frames still live: it was not only garbage that was collected"
    assert pipe("a lighthouse").images


def test_a_stream_error_without_a_status_keeps_its_words(pipe: FaceCLIPPipeline, server: TritonDouble) -> None:
    server.tells_statuses = False
    with pytest.raises(ServerError, match="height: expected a multiple of 8"):
        list(pipe.stream("a lighthouse", height=7))


def test_errors_of_a_stream_keep_their_kind(pipe: FaceCLIPPipeline) -> None:
    with pytest.raises(InvalidRequestError, match="height: expected a multiple of 8"):
        list(pipe.stream("a lighthouse", height=7))


def test_an_error_in_the_callback_cancels_the_request(pipe: FaceCLIPPipeline, server: TritonDouble) -> None:
    def callback(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipe("slow", callback_on_step_end=callback)
    assert server.cancelled.wait(5)


def test_a_failure_between_steps_is_raised_and_not_sent_again(pipe: FaceCLIPPipeline, server: TritonDouble) -> None:
    events = pipe.stream("crash between steps", retries=3)
    assert isinstance(next(events), Progress)
    with pytest.raises(ServerError, match=r"^RuntimeError: boom$"):
        next(events)
    assert len(server.received) == 1


def test_threads_share_a_pipeline(pipe: FaceCLIPPipeline) -> None:
    with futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda seed: pipe("a lighthouse", seed=seed), range(8)))
    assert [result.seed for result in results] == list(range(8))


def test_large_requests_pass(pipe: FaceCLIPPipeline, server: TritonDouble) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), np.uint8)
    pipe("a lighthouse", face_image=noise)
    assert len(server.received[0]["face_images"][0]) > 11_000_000


def test_headers_travel_with_every_call(server: TritonDouble) -> None:
    with FaceCLIPPipeline.from_pretrained(server.address, headers={"Authorization": "Bearer abc"}) as pipe:
        pipe("a lighthouse")
        list(pipe.stream("a lighthouse"))
    assert [metadata["authorization"] for metadata in server.metadata] == ["Bearer abc"] * 2


def test_tls_checks_the_server(tls_files: tuple[Path, Path]) -> None:
    key, certificate = tls_files
    server = TritonDouble(certificate=(key.read_bytes(), certificate.read_bytes()))
    url = f"grpcs://{server.address.replace('127.0.0.1', 'localhost')}"
    try:
        with FaceCLIPPipeline.from_pretrained(url, root_certificates=certificate) as pipe:
            assert pipe("a lighthouse").images
        with pytest.raises(ServerUnavailableError):
            FaceCLIPPipeline.from_pretrained(url)  # signed by nobody whom the system trusts
    finally:
        server.stop()


def test_the_connection_of_a_failed_start_is_closed(server: TritonDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    monkeypatch.setattr("faceclip.grpc_transport.GrpcTransport.close", lambda self: closed.append(True))
    with pytest.raises(ModelNotFoundError):
        FaceCLIPPipeline.from_pretrained(server.address, model="nope")
    assert closed == [True]


def test_a_unary_call_from_another_thread_ends_when_the_pipeline_is_closed(server: TritonDouble) -> None:
    pipe = FaceCLIPPipeline.from_pretrained(server.address)
    raised: list[BaseException] = []

    def call() -> None:
        try:
            pipe("slow")
        except Exception as error:  # noqa: BLE001 - which one is gRPC's choice
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert server.steps_sent.wait(5)
    pipe.close()
    thread.join(5)
    assert not thread.is_alive() and len(raised) == 1
    assert wait_until(server.cancelled.is_set)


def test_an_open_file_is_sent(pipe: FaceCLIPPipeline, photo: bytes, tmp_path: Path) -> None:
    (tmp_path / "me.png").write_bytes(photo)
    with (tmp_path / "me.png").open("rb") as file:
        assert (
            pipe("x", face_images=[file, tmp_path / "me.png", Image.open(io.BytesIO(photo))]).details["faces"] == [[30, 40]] * 3
        )
