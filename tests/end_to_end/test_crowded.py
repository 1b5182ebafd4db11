"""Many callers at once: as many as there are places are served, everybody else is refused at once, whatever the others bring."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from faceclip import DeadlineExceededError, FaceCLIPPipeline, InvalidRequestError, ServerBusyError, ServerError

from .callers import metrics, until
from .test_life import crowd, status

CALLERS, INNER_CALLS = 48, 32
"""More callers of one public model than Triton's own inner calls at a time."""
SMALL = {"num_inference_steps": 12, "height": 64, "width": 64, "guidance_scale": 1.0}


@pytest.mark.proof
@pytest.mark.parametrize("way", ["unary", "stream"])
def test_every_place_is_served_and_nobody_who_stays_is_given_up(server, way):
    until(lambda: status(server)["in_flight"] == 0)
    there = threading.Barrier(CALLERS)

    def one(_):
        with FaceCLIPPipeline.from_pretrained(server.url, timeout_s=120) as pipe:
            there.wait(60)
            started = time.monotonic()
            try:
                if way == "unary":
                    pipe("a portrait", **SMALL)
                else:
                    list(pipe.stream("a portrait", **SMALL))
            except ServerBusyError:
                return "busy", time.monotonic() - started
            return "picture", time.monotonic() - started

    with ThreadPoolExecutor(CALLERS) as callers:
        answers = callers.map(one, range(CALLERS))
        until(lambda: status(server)["in_flight"] > INNER_CALLS)
        ends = list(answers)
    kinds = [kind for kind, _ in ends]
    assert kinds.count("picture") >= 40 and kinds.count("picture") + kinds.count("busy") == CALLERS
    slowest = max((seconds for kind, seconds in ends if kind == "picture"), default=0)
    assert all(seconds < max(slowest / 2, 2) for kind, seconds in ends if kind == "busy")


def test_whoever_ends_while_others_photographs_are_prepared_is_told_at_once_and_words_pass_them(server, pipe):
    until(lambda: status(server)["in_flight"] == 0)
    photo = crowd()
    with ThreadPoolExecutor(8) as callers:

        def flood():
            with (
                FaceCLIPPipeline.from_pretrained(server.url) as own,
                pytest.raises((ServerError, InvalidRequestError)) as error,
            ):
                own("a crowd", face_images=[photo] * 4, tenant="flood", request_id="flood")
            return error.type

        floods = [callers.submit(flood) for _ in range(6)]
        until(lambda: status(server)["in_flight"] == 6)
        late = callers.submit(pipe, "a portrait", face_image=photo, timeout_s=1)
        assert pipe("a portrait", num_inference_steps=1, tenant="shop").images
        assert status(server)["in_flight"] >= 2, "the photographs are still prepared"
        with pytest.raises(DeadlineExceededError):
            late.result()
        assert pipe.cancel("flood")
        ends = [each.result() for each in floods]
        assert ends.count(InvalidRequestError) <= 4, (
            "whoever is cancelled is told so; those before him were shown to have no face"
        )
    until(lambda: status(server)["in_flight"] == 0)


@pytest.mark.parametrize(
    "body", [b'{"prompt":"x","id":"\xff"}', b'{"prompt":"x","x-a":"\xff\xfe"}', b'{"prompt":"x","\xff":1}']
)
@pytest.mark.parametrize("model", ["faceclip/generate", "faceclip_stream/generate_stream", "sampler/generate"])
def test_what_is_no_utf8_is_answered(server, model, body):
    with socket.create_connection(("127.0.0.1", server.ports.http), timeout=20) as caller:
        head = f"POST /v2/models/{model} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        caller.sendall(head.encode() + body)
        assert caller.recv(65536).startswith(b"HTTP/1.1 ")
    until(lambda: status(server)["in_flight"] == 0)


def test_requests_that_are_refused_before_they_have_a_place_are_counted_too(server, pipe):
    def counted():
        return metrics(server).get('faceclip_requests_total{outcome="invalid"}', 0)

    before = counted()
    for options in ({"tenant": "x" * 65}, {"num_inference_steps": 0}):
        with pytest.raises(InvalidRequestError):
            pipe("a portrait", **options)
    until(lambda: counted() == before + 2)
