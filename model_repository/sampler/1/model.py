"""The scheduler: encodes, batches the denoising steps of all requests in progress, and decodes.

`execute` only hands a request over and returns; its response is sent from another thread when there is something to say. So
requests of any number overlap, while Triton sees a plain (not decoupled) model that fits into an ensemble. Components that no backend
of Triton runs are run in this process, see `components`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache, partial
from typing import Any

from faceclip_serving.audit.keys import REVOKED, own
from faceclip_serving.audit.revoked import Revoked
from faceclip_serving.contract.names import DENOISER
from faceclip_serving.contract.schedules import make_scheduler
from faceclip_serving.contract.tensors import Array, Signature
from faceclip_serving.face.budget import SharingCores
from faceclip_serving.face.detectors import Detector, YuNet
from faceclip_serving.face.familiarity import read_statistics
from faceclip_serving.models import adapter
from faceclip_serving.models.components import Components
from faceclip_serving.models.metrics import Metrics
from faceclip_serving.models.sampler_metrics import SamplerMetrics
from faceclip_serving.sampling.life import Lives
from faceclip_serving.sampling.loop import StepLoop
from faceclip_serving.sampling.networks import decode_all, encode_all, inspect_all, schedule_all
from faceclip_serving.sampling.requests import Limits, Request
from faceclip_serving.sampling.service import Service
from faceclip_serving.sampling.threads import Threads


@cache
def _detector() -> Detector:
    """What seeks faces in pictures, on one core, made when one is sought: the thread that does takes turns with the steps."""
    return SharingCores(YuNet(), lambda: True)


class Response:
    """The way back to one caller."""

    def __init__(self, request: Any, signature: Signature) -> None:
        self._request = request
        self._sender = request.get_response_sender()
        self._signature = signature

    def send(self, arrays: Mapping[str, Array]) -> None:
        adapter.send(self._sender, adapter.encode(arrays, self._signature))

    def refuse(self, error: Exception) -> None:
        adapter.send(self._sender, adapter.failure(error, self._request))


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        setup = adapter.setup(args)
        self._signature = setup.signature
        make_scheduler(
            setup.variant.defaults.scheduler, setup.variant.scheduler_config
        )  # imports diffusers now, not in a request
        settings = setup.settings
        self._metrics = Metrics(setup.variant.name, setup.deployment)
        metrics = SamplerMetrics(self._metrics, settings, setup.digest, setup.placement)

        def on_end(request: Request, error: Exception | None) -> None:
            metrics.ended(error)
            self._service.ended(request.place)

        lives = Lives(Limits(**{each.name: settings[each.name] for each in fields(Limits)}), on_end)
        self._components = Components(
            setup.variant,
            setup.placement,
            lambda component: setup.folder / component,
            0 if settings["consent"] == "require" else settings["encoding_cache_mb"] * 2**20,
            setup.call,
            remembered_s=settings["encoding_cache_minutes"] * 60,
            revoked=Revoked(own(settings, "revoked", REVOKED)),
            on_lookup=metrics.looked_up,
        )
        networks, forgetful = (metrics.counted(each) for each in (self._components.networks, self._components.forgetful))
        loop = StepLoop(lives, lambda inputs: networks[DENOISER](inputs)["noise_pred"], settings["denoiser_rows"], metrics)
        work = {
            "step-loop": loop.run,
            "schedules": partial(schedule_all, lives),
            "encoder": partial(encode_all, lives),
            "decoder": partial(decode_all, lives, networks),
            "details": partial(inspect_all, lives),
        }
        self._threads = Threads(lives, work, metrics.lost_thread)
        self._service = Service(
            setup.variant, setup.digest, loop, lives, self._threads, networks, forgetful, settings,
            _detector, read_statistics(setup.folder, setup.variant),
        )  # fmt: skip

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            reply = Response(request, self._signature)
            try:
                arrays = adapter.decode(request, self._signature)
            except Exception as error:  # noqa: BLE001 - every failure becomes that request's own error response
                reply.refuse(error)
            else:
                self._service.handle(arrays, reply, adapter.who_asks(request))

    def is_ready(self) -> bool:
        """Servers of 26.04 and later ask this for /v2/health/ready: optional, without arguments, true or false, within 5 s; an
        exception or another value means not ready. Read in python_backend's pull request 430, never run: 2.51 does not ask."""
        status = self._service.status()
        return bool(status["threads_alive"]) and not status["draining"]

    def finalize(self) -> None:
        self._threads.stop()
        self._components.close()
        self._metrics.stop()
