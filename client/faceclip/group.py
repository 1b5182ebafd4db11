"""Several people in one picture, as a call gives them: each with photographs or a sealed identity, and a place."""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from .errors import InvalidRequestError
from .people import Box, Identity, encode_identity
from .photos import Photo, collect_photos, encode_mask, encode_photo


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
    face_boxes: Box | Sequence[float] | Sequence[Sequence[float]] | None = None
    """Instead: where in the photograph, or in each of them, the face is: left, top, right and bottom as fractions of it."""


@dataclass(frozen=True)
class Group:
    """What is sent of people."""

    text: str
    """The parameter `people`."""
    files: Mapping[str, list[bytes]]
    """face_images, identity and people_masks, as far as there are some."""
    chosen: Mapping[str, list[int] | list[float]]
    """face_index or face_boxes of all photographs, where one of these people has chosen."""


def encode_people(people: Sequence[Person]) -> Group:
    """Raises `TypeError` where one of `people` is none, or says something of another type, and what photographs raise."""
    if isinstance(people, (Person, Mapping)) or not all(isinstance(person, Person) for person in people):
        raise TypeError("people: expected a list of Person, or JSON with face_images beside it")
    choosing = [each for each in ("face_index", "face_boxes") if any(getattr(person, each) is not None for person in people)]
    if len(choosing) > 1:
        raise TypeError(
            "people: expected face_index or face_boxes of all who choose, got both; pipe.faces() tells the box of a number"
        )
    files: dict[str, list[bytes]] = {"face_images": [], "identity": [], "people_masks": []}
    indices: list[int] = []
    boxes: list[float] = []
    told = []
    for k, person in enumerate(people):
        if not isinstance(person.prompt, (str, type(None))):
            raise TypeError(f"people[{k}]: prompt: expected a text, got {person.prompt!r}")
        each: dict[str, Any] = {"prompt": person.prompt}
        if person.images is not None:
            photos = _photos(f"people[{k}]: images", person.images)
            each["faces"] = _added(files["face_images"], photos)
            indices += _indices(f"people[{k}]: face_index", person.face_index, len(photos))
            boxes += _boxes(f"people[{k}]: face_boxes", person.face_boxes, len(photos))
        elif person.face_index is not None or person.face_boxes is not None:
            raise TypeError(f"people[{k}]: {choosing[0]}: expected images in which a face is chosen, got none; leave it out")
        if person.weight is not None:
            (each["weight"],) = _numbers(f"people[{k}]: weight", [person.weight], "a number")
        if person.identity is not None:
            (each["identity"],) = _added(files["identity"], [encode_identity(person.identity)])
        if person.box is not None:
            each["box"] = _numbers(f"people[{k}]: box", person.box, "left, top, right, bottom")
        if person.mask is not None:
            (each["mask"],) = _added(files["people_masks"], [encode_mask(f"people[{k}]: mask", person.mask)])
        if person.consent is not None:
            each["consent"] = _consent(f"people[{k}]: consent", person.consent)
        told.append({name: value for name, value in each.items() if value is not None})
    values: dict[str, list[int] | list[float]] = {"face_index": indices, "face_boxes": boxes}
    return Group(
        json.dumps(told), {name: some for name, some in files.items() if some}, {name: values[name] for name in choosing}
    )


def _photos(name: str, images: Photo | Iterable[Photo]) -> list[bytes]:
    one = isinstance(images, (str, bytes, os.PathLike, Image.Image, np.ndarray)) or hasattr(images, "read")
    return [encode_photo(name, images)] if one else collect_photos(None, images)  # type: ignore[arg-type]


def _added(files: list[bytes], more: list[bytes]) -> list[int]:
    """Puts files behind others; their numbers."""
    files += more
    return list(range(len(files) - len(more), len(files)))


def _indices(name: str, given: int | Sequence[int] | None, count: int) -> list[int]:
    """A number for each of `count` photographs: 0, one for all, or its own."""
    try:
        each: list[Any] = [given or 0] * count if np.ndim(given) == 0 else list(given)  # type: ignore[arg-type]
        indices = [operator.index(index) for index in each if not isinstance(index, bool)]
    except (TypeError, ValueError):
        indices = []
    if len(indices) != count:
        raise TypeError(f"{name}: expected a number for each of {count} photographs, got {given!r}")
    return indices


def _boxes(name: str, given: Sequence[float] | Sequence[Sequence[float]] | None, count: int) -> list[float]:
    """Four numbers for each of `count` photographs: all of it, or its own."""
    if given is None:
        return [0.0, 0.0, 1.0, 1.0] * count
    try:
        numbers = [float(end) for end in np.asarray(given, np.float64).ravel()]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 4 * count:
        raise TypeError(f"{name}: expected left, top, right, bottom for each of {count} photographs, got {given!r}")
    return numbers


def _numbers(name: str, given: Iterable[Any], what: str) -> list[float]:
    try:
        values = list(given)
        if any(isinstance(each, (bool, str, bytes)) for each in values):
            raise TypeError
        return [float(each) for each in values]
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected {what}, got {given!r}") from None


def _consent(name: str, given: Mapping[str, Any] | str) -> Any:
    """What a record says."""
    try:
        record = json.loads(given) if isinstance(given, str) else given
        json.dumps(record)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{name}: expected a record of consent as JSON, got what is none ({error})") from None
    return record
