"""Whoever leaves ends his work; who does not read is left; nobody beside them notices."""

import json
import socket
import time

import pytest

from tests.end_to_end.callers import metrics, metrics_now, rows, status, until

SLOW = {"prompt": "a castle", "num_inference_steps": 200, "height": 512, "width": 512, "n": 4}
URL = "/v1/images/generations"
COUNTS_TOLD_S = 0.5
ROWS_PER_STEP = 8
MOST_STEPS = 6
"""As of the server's own callers: the call under way, two steps that end it, and counts that lag in between."""


def begin(gate, body):
    """A request on a socket of its own, which is never read."""
    host, port = gate.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    content = json.dumps(body).encode()
    head = f"POST {URL} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    connection.sendall(head.encode() + content)
    return connection


@pytest.mark.proof
@pytest.mark.parametrize("stream", [False, True], ids=["answer", "stream"])
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_its_work_ends_within_two_steps(gate, server, stream, reset):
    until(lambda: status(server)["in_flight"] == 0)
    time.sleep(COUNTS_TOLD_S)
    before = rows(server)
    connection = begin(gate, {**SLOW, "stream": stream, "partial_images": 3})
    until(lambda: rows(server, metrics_now) >= before + 2 * ROWS_PER_STEP)
    seen = rows(server)
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()
    until(lambda: status(server)["in_flight"] == 0)
    time.sleep(COUNTS_TOLD_S)
    assert rows(server) - seen <= MOST_STEPS * ROWS_PER_STEP
    answer = gate.http.post(URL, json={**SLOW, "n": 1, "height": 64, "width": 64, "num_inference_steps": 2})
    assert answer.status_code == 200


def test_a_stream_that_is_left_in_openais_package(client, server):
    ended = metrics(server).get('faceclip_requests_total{outcome="cancelled"}', 0)
    with client.images.generate(
        prompt="a castle", stream=True, partial_images=3, extra_body={"num_inference_steps": 60, "height": 512, "width": 512}
    ) as stream:
        assert next(iter(stream)).type == "image_generation.partial_image"
    until(lambda: status(server)["in_flight"] == 0)
    until(lambda: metrics_now(server).get('faceclip_requests_total{outcome="cancelled"}') == ended + 1)
