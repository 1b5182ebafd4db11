"""Whom the photographs of a request show: they are read, checked and prepared, and the job hears what was found."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..audit.consent import NOT_ASKED, Consent, Rule, covers
from ..audit.identities import Identities, Identity
from ..checks.checks import Checks
from ..contract.errors import InvalidRequest, Refused
from ..contract.job import Job
from ..contract.models import FACE_CROPS, PURPOSE, Purpose
from ..contract.parameters import FACE_IMAGES
from ..contract.request import parse_request, several_files
from ..contract.tensors import Array, bytes_tensor, json_tensor
from ..contract.variants.architectures import FACE_SIZE
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
    return several_files(FACE_IMAGES, variant, arrays)


def check_files(files: Mapping[str, bytes]) -> None:
    """Raises `InvalidRequest` for a file that takes long to read."""
    for which, file in files.items():
        if has_many_blocks(file):
            raise InvalidRequest(
                f"{which}: expected a photograph whose file has at most {MAX_BLOCKS} chunks or segments, got more; save it again"
            )


def covered(job: Job, consent: Consent, consents: Mapping[str, Consent] | None = None) -> Look:
    """Asks consent for each photograph, and names it for the audit log. What it returns raises `Refused`.

    `consents`: by the photographs that they are for, where these are of several people.
    """
    names: list[str] = job.audit.setdefault("references", [])

    def look(which: str, pixels: Pixels) -> None:
        if (name := (consents or {}).get(which, consent).check(which, pixels)) is not None:
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
    job.face_weights = face_weights(job.faces, job.request.face_weighting) if faces else []
    job.warnings += [warning for face in faces for warning in face.warnings]
    return faces


def recalled_identities(
    job: Job,
    files: Mapping[str, bytes],
    identities: Identities | None,
    checks: Checks | None,
    rule: Rule,
    consents: dict[str, Consent],
) -> list[Identity]:
    """Whom the sealed identities of a request are of, by its `files`. Raises `InvalidRequest`, and `Refused` where a rule says no.

    The consent that one was made with counts as if it had come with the request, unless one came that names its photographs.
    `consents`: those that came, by the files that they are for; here each becomes the one that counts.
    """
    if files and identities is None:
        which = next(iter(files))
        raise InvalidRequest(f"{which}: this server takes none (identities=off); send photographs as face_images")
    opened = []
    for which, file in files.items():
        assert identities is not None
        found = identities.open(which, file)
        opened.append(found)
        job.faces.append({"identity": found.told()})
        job.face_weights.append(1.0)
        job.audit.setdefault("identities", []).append(found.id)
        job.audit.setdefault("references", []).extend(names[0] for names in found.references)
        came = consents[which].record
        consent = rule.of_request(came if came is not None and covers(came, found.references) else found.consent or came)
        consent.check_identity(found.references, which)
        consents[which] = consent
        if checks is not None:
            job.checks += judged(job.id, partial(checks.identity, found.descriptors, found.recogniser, which))
    return opened


def prepare_identity(
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
    """The outputs of `prepare` where an identity is made of photographs. Arguments and errors as there."""
    job = undrawn(variant, digest, arrays, place, deadline, id, received)
    photos = _some(variant, arrays)
    names: list[Sequence[str]] = []
    try:
        consent = rule.of_request(job.request.consent)
        job.consent = consent.told()
        look = covered(job, consent)

        def look_and_name(which: str, pixels: Pixels) -> None:
            look(which, pixels)
            names.append(rule.references.of_photo(pixels))

        faces = chosen_faces(job, photos, detect, checks, look_and_name)
    except Refused as error:
        error.audit = job.for_audit(error.audit)
        raise
    crops = [face.crop for face in faces]
    descriptors, recogniser = ([], "") if checks is None else checks.descriptors(crops, not job.request.face_aligned)
    subject = {
        "photographs": len(crops),
        "consent": consent.record,
        "references": [each for each in names if each],
        "descriptors": descriptors,
        "recogniser": recogniser,
    }
    job.stamp("prepared")
    return {FACE_CROPS.name: stacked(faces), "subject": json_tensor(subject), "job": job.encode()}


def stacked(faces: Sequence[PreparedFace]) -> Array:
    """`FACE_CROPS` of prepared faces."""
    if not faces:  # a tensor needs a row; no row of the text encoder refers to it
        return np.zeros((1, FACE_SIZE, FACE_SIZE, 3), np.uint8)
    return np.stack([face.pixels for face in faces])


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
    photos = _some(variant, arrays)
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


def _some(variant: Variant, arrays: Mapping[str, Array]) -> dict[str, bytes]:
    """At least one photograph, by its name."""
    photos = photograph_files(variant, arrays)
    if not photos:
        raise InvalidRequest("face_images: expected at least one photograph, got none")
    check_files(photos)
    return photos


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
