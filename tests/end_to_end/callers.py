"""Callers of a real server that can be looked at and can go away: what tests of a request's life share."""

import io
import time
from contextlib import contextmanager, suppress

import numpy as np
import tritonclient.grpc as grpc
from PIL import Image

from faceclip_serving.contract.operations import Admit, End, Status
from faceclip_serving.models.holder import Holder
from server.control import ControlError, ask
from server.metrics import read_metrics
from server.probe import tensor_input

LONG = {"num_inference_steps": 200, "height": 256, "width": 256}
"""A request that does not end by itself while a test looks at it."""


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)
    return found


def status(server):
    return ask(server.connection, Status())


def metrics(server):
    """What has been counted: a metric is told about 50 ms after it has changed."""
    time.sleep(0.3)
    return metrics_now(server)


def metrics_now(server):
    """What has been told, for whoever waits for it."""
    return read_metrics(f"127.0.0.1:{server.ports.metrics}")


def rows(server, counted=metrics):
    """Rows of all denoiser calls so far."""
    return counted(server).get("faceclip_denoiser_rows_total", 0)


def inputs(**values):
    return [tensor_input(name, [value]) for name, value in {"prompt": b"a portrait", **values}.items()]


@contextmanager
def places(connection, number, deployment="faceclip"):
    """So many places of one sampler, held as a public model holds them: only this server's own models can, and its owner."""

    def asking(operation):
        return ask(connection, operation, deployment)

    holder = Holder(asking)
    held = [asking(Admit())["place"] for _ in range(number)]
    for place in held:
        holder.hold(place, lambda: False)
    try:
        yield held
    finally:
        for place in held:
            holder.drop(place)
            with suppress(ControlError):  # the test may have ended the server
                asking(End(place))
        holder.stop()


class Stream:
    """A stream of NVIDIA's client that can hang up at any moment."""

    def __init__(self, url, **values):
        self.answers = []
        self.client = grpc.InferenceServerClient(url)
        self.client.start_stream(callback=lambda result, error: self.answers.append(error or result))
        self.client.async_stream_infer("faceclip_stream", inputs(**values))

    def leave(self):
        self.client.stop_stream(cancel_requests=True)
        self.client.close()


def crowd():
    """A photograph that takes long to search: large, and nobody in it."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((3200, 2400), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
