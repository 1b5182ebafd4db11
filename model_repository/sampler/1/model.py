"""The scheduler: batches the denoising steps of all requests in progress.

`execute` only hands a request to the step loop and returns; its response is sent from the loop's thread when its pictures are
done. So requests of any number overlap, while Triton sees a plain (not decoupled) model that fits into an ensemble.
"""

from __future__ import annotations

from typing import Any

from faceclip_serving import adapter
from faceclip_serving.jobs import Job
from faceclip_serving.loop import Progress, StepLoop, Task
from faceclip_serving.sampling import start_pictures
from faceclip_serving.signatures import DENOISER, components
from faceclip_serving.tensors import Array


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self._setup = adapter.setup(args)
        denoiser = components(self._setup.variant)[DENOISER]
        self._loop = StepLoop(lambda inputs: adapter.call(denoiser, inputs)["noise_pred"], self._setup.profile.denoiser_rows)

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._start(adapter.decode(request, self._setup.signature), sender)
            except Exception as error:  # noqa: BLE001 - every failure becomes that request's own error response
                adapter.send(sender, adapter.failure(error))

    def _start(self, arrays: dict[str, Array], sender: Any) -> None:
        job = Job.decode(arrays["job"], self._setup.contract)
        job.stamp("conditioned")
        conditioning = {tensor.name: arrays[tensor.name] for tensor in self._setup.variant.conditioning}
        pictures = start_pictures(self._setup.variant, job, conditioning)

        def finish(latents: Array, progress: Progress) -> None:
            job.stamp("denoised")
            job.sampling = progress.report()
            adapter.send(sender, adapter.encode({"latents": latents, "report": job.encode()}, self._setup.signature))

        self._loop.submit(Task(pictures, finish, lambda error: adapter.send(sender, adapter.failure(error))))

    def finalize(self) -> None:
        self._loop.stop()
