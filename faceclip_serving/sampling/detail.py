"""Faces of a drawn picture that are too small to be drawn well: found, drawn again at the model's size, and put back.

Each is inpainting of diffusers' kind within the head, with `padding_mask_crop`: cut with a margin, enlarged, encoded, drawn at the
strength asked for with the request's own conditioning and the picture's own seed, and blended into the picture at the head's border.
What is outside of the mask of a picture that came is left alone. Nothing is kept but what the request's work holds.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..contract.job import Job
from ..contract.tensors import Array
from ..contract.variants.variant import Variant
from ..face.alignment import as_pixels, as_planes
from ..face.choice import fractions_of
from ..face.detectors import Face
from ..face.frames import Frame, around
from ..face.masks import WHITE, blended, cells_of, mask_of, seam_of
from ..face.photos import Pixels
from .edit import Source
from .loop import Finished, Work
from .networks import Networks, encode_picture
from .people import People
from .picture import Picture
from .pictures import start_pictures

MOST = 4
"""Faces of a picture that are drawn again, the largest first: they are seen most, and the smallest have the least to start from."""
SMALL = 0.25
"""Of the shorter side of a variant's usual picture: a narrower face has too few latent cells to be drawn well. Measured with
`nano`: likeness is gained below, and none above; assumed of other variants."""
MARGIN = 0.25
"""Around a head, of its longer side: what is cut shows a face about as large as in a portrait."""

_OUTSIDE = "it is outside of the mask"
_TOO_MANY = f"{MOST} larger ones are drawn again"
"""Why a face is not drawn again."""


def small_face(variant: Variant) -> int:
    """A face narrower than this, in pixels of what is drawn, is small."""
    return round(SMALL * min(variant.defaults.height, variant.defaults.width))


@dataclass(frozen=True, eq=False)
class Part:
    """A face that is drawn again."""

    picture: int
    frame: Frame
    seam: NDArray[np.uint8]
    """Share of what is drawn in each pixel of the frame's box, of 255."""


Search = Callable[[Pixels], Sequence[Face]]


def detail_request(variant: Variant, job: Job) -> Job:
    """The job by which a face is drawn again: at the model's size, from the step that the strength says."""
    of, request = variant.defaults, job.request
    request = replace(request, height=of.height, width=of.width, num_images_per_prompt=1, strength=request.face_detail)
    return replace(job, request=request, begin=variant.first_step(request.num_inference_steps, request.face_detail))


class Detail:
    """What is done for a request with `face_detail` once its pictures are decoded. Called by one thread, once."""

    def __init__(
        self,
        variant: Variant,
        job: Job,
        conditioning: Mapping[str, Array],
        networks: Networks,
        search: Search,
        mask: Array | None = None,
        people: People | None = None,
        wants_steps: bool = False,
        wants_previews: bool = False,
        ask_wanted: Callable[[], object] = lambda: None,
    ) -> None:
        """`conditioning`: rows as the text encoder gives them. `search` finds faces, the largest first. `mask`: over the latent cells
        [1, 1, height, width], of a picture that came: 1 where it is drawn anew. `people`: where several are; a face is drawn again as
        those whose place it is in. `ask_wanted` raises where the request has ended. The job is told what was found."""
        self._variant, self._job, self._conditioning = variant, job, conditioning
        self._networks, self._search, self._mask, self._people = networks, search, mask, people
        self._wants_steps, self._wants_previews, self._ask_wanted = wants_steps, wants_previews, ask_wanted
        self._again = detail_request(variant, job)
        self._begin = self._again.begin or 0

    @property
    def steps(self) -> int:
        """Steps of each face."""
        return self._job.request.num_inference_steps - self._begin

    def look(self, image: Array, finished: Finished) -> Work | None:
        """The parts of decoded pictures [images, 3, height, width] that are drawn again; None: there are none."""
        finished.usage.decoded = time.monotonic()
        request = self._again.request
        self._job.face_detail = {
            "strength": request.face_detail, "steps": self.steps, "height": request.height, "width": request.width,
            "small": small_face(self._variant), "pictures": [],
        }  # fmt: skip
        if not np.isfinite(image).all():
            return None  # whoever encodes the pictures says so
        shots = [as_pixels(each) for each in image]
        parts = [part for i, pixels in enumerate(shots) for part in self._parts(i, pixels)]
        if not parts:
            return None
        pictures = [self._begun(part, shots[part.picture]) for part in parts]
        return Work(
            pictures,
            self._wants_steps,
            self._wants_previews,
            finished.usage,
            before=self._job.request.num_inference_steps - (self._job.begin or 0),
            into=partial(put_into, image, shots, parts),
            shown=_shown(finished.latents[:1].copy(), parts, pictures, self._variant.latent_scale),
        )

    def _parts(self, number: int, pixels: Pixels) -> list[Part]:
        """Of picture `number`; the job hears of every face."""
        height, width = pixels.shape[:2]
        faces = self._search(pixels)
        small = small_face(self._variant)
        told: list[dict[str, Any]] = []
        parts: list[Part] = []
        for face in faces:
            part = None
            if face.box.width >= small:
                left: str | None = _large(small)
            elif not self._is_drawn(face):
                left = _OUTSIDE
            elif len(parts) == MOST:
                left = _TOO_MANY
            else:
                part = self._part(number, face, height, width)
                left = None if part else "it is outside of the picture"
                parts += [part] if part else []
            told.append({
                "box": fractions_of(face, height, width), "width": round(face.box.width, 1),
                "frame": part and list(part.frame.box), "left": left,
            })  # fmt: skip
        self._job.face_detail["pictures"].append(told)
        self._job.warnings += _warnings(number, told, small)
        return parts

    def _is_drawn(self, face: Face) -> bool:
        """Whether most of a face was drawn, and is no part of a picture that came."""
        if self._mask is None:
            return True
        x, y, across, down = (each / self._variant.latent_scale for each in face.box)
        cells = self._mask[0, 0, max(int(y), 0) : int(y + down) + 1, max(int(x), 0) : int(x + across) + 1]
        return bool(cells.size and cells.mean() > 0.5)

    def _part(self, number: int, face: Face, height: int, width: int) -> Part | None:
        mask = mask_of(face, "head", height, width)
        if not mask.any():
            return None
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        margin = round(MARGIN * max(len(rows), len(columns)))
        request = self._again.request
        frame = around(mask >= WHITE, margin, request.height, request.width)
        left, top, right, bottom = frame.box
        return Part(number, frame, seam_of(mask >= WHITE)[top:bottom, left:right])

    def _begun(self, part: Part, pixels: Pixels) -> Picture:
        """The face, cut, enlarged and as noisy as the strength wants it."""
        self._ask_wanted()
        request = replace(self._again.request, seed=self._job.request.seeds[part.picture])
        left, top, right, bottom = part.frame.box
        mask = np.zeros(pixels.shape[:2], np.uint8)
        mask[top:bottom, left:right] = np.where(part.seam > 0, 255, 0)
        cells = cells_of(part.frame.seen(mask), self._variant.latent_scale)
        mean, std = encode_picture(self._networks, as_planes(part.frame.seen(pixels))[None])
        source = Source(mean, std, cells, from_noise=request.face_detail == 1.0)
        people = self._people and self._people.seen(part.frame, self._variant.latent_scale)
        (picture,) = start_pictures(self._variant, replace(self._again, request=request), self._conditioning, source, people)
        return picture


def put_into(image: Array, shots: Sequence[Pixels], parts: Sequence[Part], drawn: Array) -> Array:
    """Pictures [images, 3, height, width] with their parts [parts, 3, height, width] in them, the largest last. Those without are as they
    were, to the bit."""
    changed = {part.picture: shots[part.picture].copy() for part in parts}
    for part, planes in reversed(list(zip(parts, drawn, strict=True))):
        left, top, right, bottom = part.frame.box
        within = changed[part.picture][top:bottom, left:right]
        within[...] = blended(within, part.frame.returned(as_pixels(planes)), part.seam)
    result = image.copy()
    for number, pixels in changed.items():
        result[number] = as_planes(pixels)
    return result


def _shown(latents: Array, parts: Sequence[Part], pictures: Sequence[Picture], scale: int) -> Callable[[], Array]:
    """The first picture's `latents` [1, channels, height, width], with its parts in them as they are when it is called."""
    own = [(part.frame, picture) for part, picture in zip(parts, pictures, strict=True) if part.picture == 0]

    def show() -> Array:
        shown = latents.copy()
        for frame, picture in reversed(own):
            left, top = frame.box[0] // scale, frame.box[1] // scale
            place = shown[0, :, top : -(-frame.box[3] // scale), left : -(-frame.box[2] // scale)]
            x, y, right, bottom = (each // scale for each in frame.place)
            for into, channel in zip(place, picture.latents[0], strict=True):
                cells = channel[y : max(bottom, y + 1), x : max(right, x + 1)]
                into[...] = cv2.resize(cells, into.shape[::-1], interpolation=cv2.INTER_AREA)
        return shown

    return show


def _large(small: int) -> str:
    return f"it is at least {small} pixels wide"


def _warnings(number: int, told: Sequence[Mapping[str, Any]], small: int) -> list[str]:
    """Why nothing of a picture is drawn again, or not all."""
    drawn = sum(face["left"] is None for face in told)
    if not told:
        return [f"face_detail: no face was found in picture {number}; it is as it was drawn"]
    if not drawn and all(face["left"] == _large(small) for face in told):
        return [
            f"face_detail: picture {number} has no face that was drawn narrower than {small} pixels, from where on this variant draws"
            " them well; it is as it was drawn"
        ]
    if not drawn:
        reasons = ", ".join(f"{count} since {reason}" for reason, count in Counter(face["left"] for face in told).items())
        return [f"face_detail: no face of picture {number} is drawn again: {reasons}; it is as it was drawn"]
    if any(face["left"] == _TOO_MANY for face in told):
        return [f"face_detail: picture {number} has more than {MOST} small faces; the {MOST} largest of them were drawn again"]
    return []
