"""Whom the photographs of a request show: they are read, checked and prepared, and the job hears what was found."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..audit.consent import NOT_ASKED, Consent, Rule
from ..checks.checks import Checks
from ..contract.errors import InvalidRequest, Refused
from ..contract.job import Job
from ..contract.models import PURPOSE, Purpose
from ..contract.request import parse_request, reference_photos
from ..contract.tensors import Array, bytes_tensor
from ..contract.variants.variant import Variant
from ..face.choice import LARGEST, choices
from ..face.detectors import Detector
from ..face.photos import Pixels
from ..face.prepare import PreparedFace, list_faces, prepare_face
from ..face.references import face_weights
from ..marking.verify import MAX_BLOCKS, has_many_blocks, input_credentials
from .checks import judged

Look = Callable[[str, Pixels], None]
"""Sees a decoded photograph before anything is sought in it; it is called `face_images[0]`, say."""


def purpose_of(arrays: Mapping[str, Array]) -> Purpose | None:
    """Why a request's photographs are prepared; None: to draw."""
    return Purpose(arrays[PURPOSE.name][0].decode()) if PURPOSE.name in arrays else None


def photograph_files(variant: Variant, arrays: Mapping[str, Array]) -> dict[str, bytes]:
    """The photographs of a request, by their names in messages. Raises `InvalidRequest`."""
    return {f"face_images[{i}]": photo for i, photo in enumerate(reference_photos(variant, arrays))}


def check_files(files: Mapping[str, bytes]) -> None:
    """Raises `InvalidRequest` for a file that takes long to read."""
    for which, file in files.items():
        if has_many_blocks(file):
            raise InvalidRequest(
                f"{which}: expected a photograph whose file has at most {MAX_BLOCKS} chunks or segments, got more; save it again"
            )


def covered(job: Job, consent: Consent) -> Look:
    """Asks consent for each photograph, and names it for the audit log. What it returns raises `Refused`."""
    names: list[str] = job.audit.setdefault("references", [])

    def look(which: str, pixels: Pixels) -> None:
        if (name := consent.check(which, pixels)) is not None:
            names.append(name)

    return look


def chosen_faces(
    job: Job, photos: Mapping[str, bytes], detect: Detector, checks: Checks | None, look: Look
) -> list[PreparedFace]:
    """The face of each photograph that the request means. Raises `InvalidRequest`, and `Refused` where a check or `look` says no."""
    aligned = job.request.face_aligned
    chosen = [LARGEST] * len(photos)
    if photos and not aligned:
        chosen = choices(len(photos), job.request.face_index, job.request.face_boxes)
    faces = [
        prepare_face(photo, i, aligned, detect, lambda index, pixels: look(f"face_images[{index}]", pixels), choice)
        for i, (photo, choice) in enumerate(zip(photos.values(), chosen, strict=True))
    ]
    if checks is not None and faces:
        thumbnails, crops = [face.thumbnail for face in faces], [face.crop for face in faces]
        job.checks += judged(job.id, partial(checks.photographs, thumbnails, crops, not aligned))
    job.faces = [{**face.report, **came_with(photo)} for photo, face in zip(photos.values(), faces, strict=True)]
    job.face_weights = face_weights(job.faces, job.request.face_weighting)
    job.warnings += [warning for face in faces for warning in face.warnings]
    return faces


def came_with(photo: bytes) -> dict[str, Any]:
    """What a photograph's own credentials say, where it has some: the picture made from it names them."""
    found = input_credentials(photo)
    return (
        {}
        if found is None
        else {"credentials": {"manifest": found.manifest, "state": found.state, "generated": found.generated}}
    )


def prepare_list(
    variant: Variant,
    detect: Detector,
    digest: str,
    arrays: Mapping[str, Array],
    place: str = "",
    deadline: float | None = None,
    id: str = "",
    received: float | None = None,
    checks: Checks | None = None,
    rule: Rule = NOT_ASKED,
) -> dict[str, Array]:
    """The outputs of `prepare` where photographs are asked which faces they show: a job that says so. Arguments and errors as there.

    Nobody is pictured, so no consent is asked; the audit log has the names of the photographs.
    """
    job = undrawn(variant, digest, arrays, place, deadline, id, received)
    photos = photograph_files(variant, arrays)
    if not photos:
        raise InvalidRequest("face_images: expected at least one photograph, got none")
    check_files(photos)
    names: list[str] = job.audit.setdefault("references", [])
    try:
        found = [
            list_faces(photo, i, detect, lambda _, pixels: names.extend(rule.references.of_photo(pixels)[:1]))
            for i, photo in enumerate(photos.values())
        ]
        if checks is not None:
            job.checks += judged(job.id, partial(checks.photographs, [each.thumbnail for each in found], []))
    except Refused as error:
        error.audit = job.for_audit(error.audit)
        raise
    job.faces = [each.report for each in found]
    job.stamp("prepared")
    return {"job": job.encode()}


def undrawn(
    variant: Variant,
    digest: str,
    arrays: Mapping[str, Array],
    place: str,
    deadline: float | None,
    id: str,
    received: float | None,
) -> Job:
    """The job of a request that draws nothing, and so has no prompt. Raises `InvalidRequest`."""
    request = parse_request(variant, {**arrays, "prompt": bytes_tensor([b"-"])})
    job = Job(request, {}, [], place, deadline, digest, id)
    job.clock["received"] = time.monotonic() if received is None else received
    return job
