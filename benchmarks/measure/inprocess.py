"""The whole pipeline in one process: the same functions, graphs and memory of encodings, without a server between them.

What serving costs, and what it does to a picture, is measured against this.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from export.paths import ROOT
from faceclip_serving.contract.components import components
from faceclip_serving.contract.digest import package_digest
from faceclip_serving.contract.job import Job
from faceclip_serving.contract.models import FACE_CROPS, LATENT_MASK, ORIGINAL, SEAM
from faceclip_serving.contract.names import DEFAULT_DEPLOYMENT, DENOISER, FACE_ENCODER, PREPARE, TEXT_ENCODER, VAE_DECODER
from faceclip_serving.contract.placements import Placement
from faceclip_serving.contract.settings import resolve
from faceclip_serving.contract.tensors import Array, bytes_tensor
from faceclip_serving.contract.variants.variant import Variant
from faceclip_serving.face.detectors import YuNet
from faceclip_serving.face.search import find_faces
from faceclip_serving.marking.marker import Marker
from faceclip_serving.models.components import Components
from faceclip_serving.models.finish import finish
from faceclip_serving.models.prepare import prepare
from faceclip_serving.models.prompts import load_tokenizer
from faceclip_serving.sampling.detail import Detail, Search
from faceclip_serving.sampling.loop import Finished, Usage
from faceclip_serving.sampling.networks import Run, decoded, encode_texts, people_of, source_of
from faceclip_serving.sampling.pictures import sample, start_pictures

Arrays = dict[str, Array]
_DIGEST = package_digest(ROOT / "faceclip_serving")


@dataclass
class Pipeline:
    """Callables of one assembled repository. `seconds`: time per stage of the last request."""

    variant: Variant
    denoiser_rows: int
    stages: dict[str, Run]
    search: Search = field(default_factory=lambda: partial(find_faces, detect=YuNet()))
    """Finds faces in pictures, for `face_detail`."""
    seconds: dict[str, float] = field(default_factory=dict)
    skipped_steps: int = 0
    """Of the last request, see `step_cache`."""

    def __call__(self, arrays: Arrays) -> dict[str, Array]:
        """Public inputs -> public outputs; pictures as files, unless the request wants them otherwise."""
        self.seconds = {}
        prepared = self._timed(PREPARE, {"image_encoding": bytes_tensor([b"binary"]), **arrays})
        nets = components(self.variant)

        def inputs(name: str, known: Mapping[str, Array]) -> Arrays:
            return {tensor.name: known[tensor.name] for tensor in nets[name].inputs}

        known = {**prepared, **self._timed(FACE_ENCODER, {FACE_CROPS.name: prepared[FACE_CROPS.name]})}
        encode = partial(encode_texts, self.variant, self.stages[TEXT_ENCODER])
        conditioning = self._timed(TEXT_ENCODER, inputs(TEXT_ENCODER, known), encode)
        job = Job.decode(prepared["job"], _DIGEST)
        job.stamp("conditioned")
        job.stamp("begun")
        started = time.monotonic()
        pictures = start_pictures(self.variant, job, conditioning, source_of(self.stages, job, prepared), people_of(prepared))
        latents = sample(pictures, self._denoise, self.denoiser_rows)
        self.skipped_steps = sum(picture.cache.skipped for picture in pictures)
        self.seconds["sample"] = time.monotonic() - started
        job.stamp("denoised")
        image = self._timed(VAE_DECODER, {"latents": latents})
        job.stamp("decoded")
        if job.request.face_detail:
            image = self._detailed(job, conditioning, prepared, latents, image["image"])
            job.stamp("detailed")
        beside = {each.name: prepared[each.name] for each in (ORIGINAL, SEAM) if each.name in prepared}
        return dict(self._timed("finish", {**image, **beside, "report": job.encode()}))

    def _detailed(
        self, job: Job, conditioning: Mapping[str, Array], prepared: Mapping[str, Array], latents: Array, image: Array
    ) -> Arrays:
        """Decoded pictures with their small faces drawn again."""
        detail = Detail(
            self.variant, job, conditioning, self.stages, self.search, prepared.get(LATENT_MASK.name), people_of(prepared)
        )
        work = detail.look(image, Finished(latents, Usage()))
        if work is None or work.into is None:
            return {"image": image}
        again = sample(work.pictures, self._denoise, self.denoiser_rows)
        return {"image": decoded(self.stages[VAE_DECODER], Finished(again, work.usage, into=work.into))}

    def _denoise(self, inputs: Mapping[str, Array]) -> Array:
        return self.stages[DENOISER](dict(inputs))["noise_pred"]

    def _timed(self, stage: str, arrays: Arrays, run: Run | None = None) -> Mapping[str, Array]:
        started = time.monotonic()
        outputs = (run or self.stages[stage])(arrays)
        self.seconds[stage] = time.monotonic() - started
        return outputs


def no_marks(placement: Placement) -> Marker:
    """For pictures that are compared to the last bit."""
    return Marker.from_settings(resolve(placement, DEFAULT_DEPLOYMENT, {"marks": "none"}, {}), "in process", "")


def load(variant: Variant, placement: Placement, repository: Path, threads: int = 0) -> Pipeline:
    """The pipeline over an assembled repository's own artifacts; its pictures bear no marks.

    `threads` of each graph; 0: as many as there are cores.
    """
    folder = repository / PREPARE / "1"
    tokenizers = [load_tokenizer(folder / tokens.tokenizer) for tokens in variant.tokens]
    stages: dict[str, Run] = {
        PREPARE: partial(prepare, variant, tokenizers, YuNet(), _DIGEST),
        "finish": partial(finish, variant, placement, _DIGEST, no_marks(placement)),
    }
    opened = Components(
        variant, placement, lambda name: repository / placement.folder(name), placement.encoding_cache_bytes, threads=threads
    )
    return Pipeline(variant, placement.denoiser_rows, {**stages, **opened.networks})
