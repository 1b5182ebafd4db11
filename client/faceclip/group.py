"""Several people in one picture, as a call gives them: each with photographs or a sealed identity, and a place."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from .people import Box, Identity, encode_identity
from .photos import Photo, collect_photos, encode_photo


@dataclass(frozen=True)
class Person:
    """One of up to four people of `people=[...]`. `images` or `identity`, and `box` or `mask`; the rest may be left out."""

    images: Photo | Iterable[Photo] | None = field(default=None, repr=False)
    """A photograph of this person, or several."""
    box: Box | Sequence[float] | None = None
    """Where they are: left, top, right and bottom as fractions of the picture."""
    mask: Photo | None = field(default=None, repr=False)
    """The same as a picture of its size: white there, black elsewhere."""
    prompt: str | None = None
    """What this person is to look like; left out: the prompt of the call."""
    weight: float | None = None
    """How much of them there is in their place, from 0 to 2; left out: 1."""
    identity: Identity | bytes | str | os.PathLike[str] | BinaryIO | None = field(default=None, repr=False)
    """The person, sealed by this server, in the place of photographs."""
    consent: Mapping[str, Any] | str | None = field(default=None, repr=False)
    """This person's record of consent, or its JSON; left out: the call's."""
    face_index: int | Sequence[int] | None = None
    """Which face of the photograph, or of each of them; left out: the largest."""


@dataclass(frozen=True)
class Group:
    """What is sent of people."""

    text: str
    """The parameter `people`."""
    files: Mapping[str, list[bytes]]
    """face_images, identity and people_masks, as far as there are some."""
    face_index: list[int] | None
    """Of all photographs, where one of these people has chosen."""


def encode_people(people: Sequence[Person]) -> Group:
    """Raises `TypeError` where one of `people` is none, and what photographs raise."""
    if isinstance(people, (Person, Mapping)) or not all(isinstance(person, Person) for person in people):
        raise TypeError("people: expected a list of Person, or JSON with face_images beside it")
    files: dict[str, list[bytes]] = {"face_images": [], "identity": [], "people_masks": []}
    indices: list[int] = []
    told = []
    for k, person in enumerate(people):
        each: dict[str, Any] = {name: getattr(person, name) for name in ("prompt", "weight")}
        if person.images is not None:
            photos = _photos(f"people[{k}]: images", person.images)
            each["faces"] = _added(files["face_images"], photos)
            indices += _indices(f"people[{k}]: face_index", person.face_index, len(photos))
        if person.identity is not None:
            (each["identity"],) = _added(files["identity"], [encode_identity(person.identity)])
        if person.box is not None:
            each["box"] = [float(end) for end in person.box]
        if person.mask is not None:
            (each["mask"],) = _added(files["people_masks"], [encode_photo(f"people[{k}]: mask", person.mask)])
        if person.consent is not None:
            each["consent"] = json.loads(person.consent) if isinstance(person.consent, str) else person.consent
        told.append({name: value for name, value in each.items() if value is not None})
    chosen = any(person.face_index is not None for person in people)
    return Group(json.dumps(told), {name: some for name, some in files.items() if some}, indices if chosen else None)


def _photos(name: str, images: Photo | Iterable[Photo]) -> list[bytes]:
    one = isinstance(images, (str, bytes, os.PathLike, Image.Image, np.ndarray)) or hasattr(images, "read")
    return [encode_photo(name, images)] if one else collect_photos(None, images)  # type: ignore[arg-type]


def _added(files: list[bytes], more: list[bytes]) -> list[int]:
    """Puts files behind others; their numbers."""
    files += more
    return list(range(len(files) - len(more), len(files)))


def _indices(name: str, given: int | Sequence[int] | None, count: int) -> list[int]:
    indices = [given or 0] * count if given is None or isinstance(given, int) else list(given)
    if len(indices) != count:
        raise TypeError(f"{name}: expected a number for each of {count} photographs, got {given!r}")
    return indices
