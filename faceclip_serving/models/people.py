"""Who is where in a picture of several people: whose consent each file needs, and which share of each latent cell is whose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from ..audit.consent import Consent, Rule
from ..contract.errors import InvalidRequest
from ..contract.job import Job
from ..contract.models import SHARES
from ..contract.parameters import FACE_IMAGES, PEOPLE_MASKS, GenerationRequest
from ..contract.tensors import Array
from ..contract.variants.variant import Variant
from ..face.frames import Frame, whole
from ..face.masks import WHITE, Grey, read_mask
from ..face.references import face_weights

BORDER = 0.04
"""Standard deviation of the soft border between people, of the picture's shorter side."""
_OWN = 0.5
"""Somewhere a person has more than this of a cell, or nothing of the picture shows them."""

Person = Mapping[str, Any]
"""As `contract.people.People` reads one."""


def consents_of(
    people: Sequence[Person], files: Sequence[str], identities: Sequence[str], consent: Consent, rule: Rule
) -> dict[str, Consent]:
    """For each of the `files`, by their names in messages, the consent that came for it: the person's own, else the request's.

    `identities`: those of them that are sealed. Raises `Refused` for a record that does not do.
    """
    own = {k: rule.of_request(person["consent"]) for k, person in enumerate(people) if person["consent"] is not None}
    owner = {name: k for k, person in enumerate(people) for name in _files_of(person, identities)}
    return {name: own.get(owner.get(name, -1), consent) for name in files}


def place_people(job: Job, people: Sequence[Person], photographs: int) -> None:
    """Tells the job whose its faces are: those of photographs, then those of identities."""
    job.people = [[photographs + each["identity"]] if each["faces"] is None else each["faces"] for each in people]
    for faces in job.people:
        reports = [job.faces[face] for face in faces]
        for face, weight in zip(faces, face_weights(reports, job.request.face_weighting), strict=True):
            job.face_weights[face] = weight


def tell_consents(job: Job, people: Sequence[Person], consents: Mapping[str, Consent], identities: Sequence[str]) -> None:
    """Tells the job by whose consent, of each of several people."""
    if people:
        told = [consents[_files_of(person, identities)[0]].told() for person in people]
        job.consent = {**job.consent, "people": told}


def _files_of(person: Person, identities: Sequence[str]) -> list[str]:
    """The files of a person, by their names in messages."""
    if person["faces"] is None:
        return [identities[person["identity"]]]
    return [f"{FACE_IMAGES.name}[{number}]" for number in person["faces"]]


def prepare_shares(
    variant: Variant, request: GenerationRequest, masks: Sequence[bytes], edit: Mapping[str, Any]
) -> dict[str, Array]:
    """The tensor `shares` of a request with people. `masks`: the files of `people_masks`; `edit`: `Job.edit`.

    Raises `InvalidRequest`, where somebody has no place of their own.
    """
    people = request.people or []
    if not people:
        return {}
    height, width = (edit["height"], edit["width"]) if edit else (request.height, request.width)
    frame = Frame.from_json(edit["frame"]) if edit else whole((height, width), height, width)
    greys = (_grey(person, f"people[{k}]", masks, height, width) for k, person in enumerate(people))
    covered = np.stack([_covered(variant, frame, grey) for grey in greys])
    _check_places(people, covered)
    return {SHARES.name: shares_of(covered, [person["weight"] for person in people])}


def shares_of(covered: Array, weights: Sequence[float]) -> Array:
    """How much of each cell is whose, FP32 [people, 1, height, width]: with soft borders, shared where people overlap, times weights.

    `covered`: the part of each cell that a person's box or mask covers, FP32 [people, height, width].
    """
    sigma = BORDER * min(covered.shape[1:])
    soft = np.stack([cv2.GaussianBlur(each, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE) for each in covered])
    of_each = np.asarray(weights, np.float32)[:, None, None]
    return np.asarray(of_each * soft / np.maximum(soft.sum(0), np.float32(1)), np.float32)[:, None]


def _grey(person: Person, name: str, masks: Sequence[bytes], height: int, width: int) -> Grey:
    """Where somebody is, in a picture of `height` x `width`."""
    if person["mask"] is not None:
        file = f"{PEOPLE_MASKS.name}[{person['mask']}]"
        return read_mask(masks[person["mask"]], file, height, width, "the picture", f"{name} is")
    left, top, right, bottom = person["box"]
    canvas = np.zeros((height, width), np.uint8)
    canvas[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = 255
    return canvas


def _covered(variant: Variant, frame: Frame, grey: Grey) -> Array:
    scale = variant.latent_scale
    white = (frame.seen(grey) >= WHITE).astype(np.float32)
    height, width = (side // scale for side in white.shape)
    return np.asarray(white.reshape(height, scale, width, scale).mean((1, 3)))


def _check_places(people: Sequence[Person], covered: Array) -> None:
    shares = covered / np.maximum(covered.sum(0), 1)
    for k, person in enumerate(people):
        where = f"people[{k}]: {'box' if person['mask'] is None else 'mask'}"
        if covered[k].max() <= _OWN:
            raise InvalidRequest(
                f"{where}: expected a part of what is drawn, got less than a latent cell of it; make it larger, or draw more of the picture"
            )
        if shares[k].max() <= _OWN:
            others = [f"people[{j}]" for j in range(len(people)) if j != k and covered[j][covered[k] > _OWN].any()]
            raise InvalidRequest(
                f"{where}: expected some place of their own, got one that is shared with {' and '.join(others)} all over; move one of them"
            )
