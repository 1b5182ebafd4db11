"""What the `finish` model does: decoded pictures become files, and the job becomes the public `details`."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from ..checks.checks import Checks
from ..contract.errors import NotANumber, Refused
from ..contract.job import Job
from ..contract.placements import Placement
from ..contract.request import to_wire
from ..contract.tensors import Array, json_tensor
from ..contract.variants.variant import Variant
from ..face.photos import encode_picture
from ..marking.marker import Marked, Marker, Pixels
from .audit import FOR_AUDIT, outputs
from .checks import judged
from .edit import put_back

STAGES = (("prepare", "received", "prepared"), ("encode", "prepared", "conditioned"), ("queue", "conditioned", "begun"),
          ("denoise", "begun", "denoised"), ("decode", "denoised", "decoded"),
          ("detail", "decoded", "detailed"))  # fmt: skip
"""Stage name, and the events between which it runs; `detail`: where faces are drawn again."""


def finish(
    variant: Variant,
    placement: Placement,
    digest: str,
    marker: Marker,
    arrays: Mapping[str, Array],
    checks: Checks | None = None,
) -> dict[str, Array]:
    """The public outputs from the decoder's pictures [images, 3, height, width] in [0, 1] and the sampler's report.

    `checks`: None for measurements in one process, where nothing is refused. Raises `Refused` where the policy says no.
    """
    job = Job.decode(arrays["report"], digest)
    pixels = list(to_pixels(arrays["image"]))
    if job.edit:
        pixels = [put_back(each, arrays, job.edit) for each in pixels]
    begun = time.monotonic()
    if checks is not None:
        try:
            job.checks += judged(job.id, partial(checks.pictures, pixels))
        except Refused as error:
            error.audit = job.for_audit(error.audit)
            raise
    check_s = time.monotonic() - begun
    seeds = job.request.seeds
    marked = [_file(variant, job, marker, picture, seed) for picture, seed in zip(pixels, seeds, strict=True)]
    for_audit = job.for_audit({"outputs": outputs(marked, pixels)})
    return {
        "images": to_wire([each.file for each in marked], job.request.image_encoding),
        "seeds": np.array(seeds, np.int64),
        "details": json_tensor({**details(variant, placement, job, marker, marked, check_s, checks), FOR_AUDIT: for_audit}),
    }


def _file(variant: Variant, job: Job, marker: Marker, picture: Pixels, seed: int) -> Marked:
    """One picture's file, with all its marks."""
    output_format = job.request.output_format

    def encode(image: Pixels, xmp: bytes) -> bytes:
        return encode_picture(image, output_format, provenance(variant, job, seed), xmp)

    inputs = [face["credentials"] for face in job.faces if "credentials" in face]
    parent = job.edit.get("credentials", {}) if job.edit else None
    return marker.mark(picture, output_format, encode, job.request.visible_label, inputs, parent)


def to_pixels(image: Array) -> Array:
    """FP32 [images, 3, height, width] in [0, 1] -> uint8 [images, height, width, 3], rounded as diffusers rounds.

    Raises `NotANumber`.
    """
    if not np.isfinite(image).all():
        raise NotANumber(
            "images: the decoded picture holds values that are not numbers; on a GPU try a decoder of a wider precision (fp32), else"
            " other scheduler options or less guidance"
        )
    return (image.transpose(0, 2, 3, 1) * 255).round().astype(np.uint8)


def provenance(variant: Variant, job: Job, seed: int) -> dict[str, str]:
    """Text stored in the picture's file: that it is generated or edited, by what, and the seed. Never the prompt or the face."""
    source = "AI edited" if job.edit else "AI generated"
    return {"Software": f"faceclip-triton ({variant.name})", "Source": source, "Seed": str(seed)}


def _who_is_where(job: Job) -> list[dict[str, Any]]:
    """Of several people: which of the `faces` are whose, by their numbers, and where."""
    pairs = zip(job.people, job.request.people or (), strict=True)
    return [{"faces": faces, **{key: person[key] for key in ("box", "mask", "weight")}} for faces, person in pairs]


def details(
    variant: Variant,
    placement: Placement,
    job: Job,
    marker: Marker,
    marked: Sequence[Marked],
    check_s: float,
    checks: Checks | None,
) -> dict[str, Any]:
    """The public report of a request."""
    request = asdict(job.request) | {"consent": job.consent.get("id")}
    people = job.request.people
    if people is not None:
        ids = [told["id"] for told in job.consent["people"]]
        request["people"] = [{**person, "consent": id} for person, id in zip(people, ids, strict=True)]
    timings = {stage: job.clock[end] - job.clock[start] for stage, start, end in STAGES if end in job.clock}
    now = time.monotonic()
    timings["check"] = check_s
    timings["mark"] = sum(each.seconds for each in marked)
    timings["finish"] = now - job.clock.get("detailed", job.clock["decoded"])
    timings["total"] = now - job.clock["received"]
    return {
        "id": job.id,
        "variant": variant.name,
        "licence": variant.licence.text,
        "placement": placement.name,
        "emulated": dict(placement.emulated),
        "parameters": request,
        "seeds": job.request.seeds,
        "timings_s": {stage: round(seconds, 6) for stage, seconds in timings.items()},
        "sampling": job.sampling,
        "faces": job.faces,
        "people": _who_is_where(job) or None,
        "edit": job.edit or None,
        "face_detail": job.face_detail or None,
        "consent": job.consent,
        "prompt_tokens": job.prompt_tokens,
        "prompt_chunks": job.prompt_chunks,
        "warnings": job.warnings,
        "marks": {**marker.told(), "pictures": [each.record for each in marked]},
        "checks": checks.policy.told() if checks is not None else None,
        "versions": {"digest": job.digest[:12], "python": platform.python_version(), "numpy": np.__version__},
    }
