"""Sampling: pictures on their way from noise to latents, advanced together by a denoiser that takes rows of any of them.

The unit is one `Picture`, from noise or from another picture. A tick picks pictures of one latent size and one length of texts,
calls the denoiser once for all their rows, and advances each by one step; so requests with different step counts, schedulers
and guidance share every call, and may join and leave between ticks. The denoiser is any callable; nothing here knows of Triton.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..contract.job import Job
from ..contract.tensors import Array
from ..contract.variants.variant import Variant
from .edit import Edited, Source
from .guidance import IDENTITY, PREFIXED_TEXT, TEXT, UNCONDITIONAL, blend, chain_at, weighted_sum
from .people import People, person, plain_text_of
from .picture import Picture
from .schedule import start_schedule
from .step_cache import StepCache
from .texts import of_texts

Denoise = Callable[[Mapping[str, Array]], Array]
"""The denoiser's inputs, named as in its signature -> noise_pred [rows, channels, height, width]. They are used again after it."""


def branch_conditioning(job: Job, conditioning: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """Row -> conditioning tensors [1, ...], with references weighted and identities blended as the request says.

    `conditioning`: a row per text of the job.
    """

    def rows(role: str) -> list[dict[str, Array]]:
        return [{name: array[i : i + 1] for name, array in conditioning.items()} for i in job.rows[role]]

    branches = {branch: rows(branch)[0] for branch in (UNCONDITIONAL, TEXT) if branch in job.rows}
    everybody: dict[str, tuple[Sequence[int], str]] = {IDENTITY: (range(len(job.face_weights)), PREFIXED_TEXT)}
    everybody |= {person(k): (faces, plain_text_of(k)) for k, faces in enumerate(job.people)}
    for branch, (of, plain_text) in everybody.items():
        if branch not in job.rows:
            continue
        faces, weights = rows(branch), [job.face_weights[face] for face in of]
        identity = {name: weighted_sum([face[name] for face in faces], weights) for name in conditioning}
        if plain_text in job.rows:
            plain = rows(plain_text)[0]
            identity = {name: blend(identity[name], plain[name], job.request.blend_weight) for name in conditioning}
        branches[branch] = identity
    return {b: {name: array.astype(np.float32, copy=False) for name, array in c.items()} for b, c in branches.items()}


def start_pictures(
    variant: Variant, job: Job, conditioning: Mapping[str, Array], source: Source | None = None, people: People | None = None
) -> list[Picture]:
    """The pictures of a job: at pure noise, or at the step `job.begin` of a run that starts from `source`.

    `conditioning`: rows as the text encoder gives them. `people`: where several are.

    Raises `InvalidRequest` where the schedule cannot be run.
    """
    request = job.request
    extras = variant.extras_for(request.height, request.width)
    branches = branch_conditioning(job, of_texts(variant, job, conditioning))
    constants = {branch: {**tensors, **extras} for branch, tensors in branches.items()}
    steps = range(job.begin or 0, request.num_inference_steps)
    chains = tuple(chain_at(request, bool(job.face_weights), step) for step in steps)
    shape = (1, variant.latent_channels, request.height // variant.latent_scale, request.width // variant.latent_scale)
    schedule = start_schedule(variant, request, job.begin)

    def picture(seed: int) -> Picture:
        cache = StepCache(request.step_cache)
        if source is None:
            return Picture(schedule, chains, constants, shape, seed, cache, people)
        return Edited(schedule, chains, constants, shape, seed, cache, people, source=source)

    return [picture(seed) for seed in request.seeds]


def in_turn(pictures: Iterable[Picture]) -> list[Picture]:
    """Those that are not done; the one that has waited longest comes first."""
    return sorted((p for p in pictures if not p.done), key=lambda picture: picture.last_tick)


def fitting(waiting: Sequence[Picture], max_rows: int) -> list[Picture]:
    """The pictures of the next tick: the first, whole, and others of its size, with as long texts, while their rows fit.

    Pictures that were served go to the back of the order, so sizes alternate and none starves.
    """
    chosen: list[Picture] = []
    rows = 0
    for picture in waiting:
        needed = len(picture.rows)
        if picture.row_shape == waiting[0].row_shape and (not chosen or rows + needed <= max_rows):
            chosen.append(picture)
            rows += needed
    return chosen


def select(pictures: Iterable[Picture], max_rows: int) -> list[Picture]:
    """Whom of these the next tick is for."""
    return fitting(in_turn(pictures), max_rows)


_Members = tuple[tuple[Picture, tuple[str, ...]], ...]
"""The pictures of a call, in the order of their rows, and what each of its rows is."""
_REMEMBERED_BATCHES = 4
"""More requests than one call has rows for take turns, in as many groups as there are calls."""


class _Rows(NamedTuple):
    """Where one picture is written to in a call's inputs: views, since to slice takes longer than to write."""

    picture: Picture
    first: Array
    """Latents of its first row [1, ...]."""
    others: Array
    """Latents of its other rows [rows - 1, ...]."""
    timesteps: Array
    """[rows, 1]."""


class Batch:
    """Builds denoiser inputs, in arrays that it fills again for the same pictures: of its last few calls, since they repeat."""

    def __init__(self) -> None:
        self._known: OrderedDict[_Members, tuple[dict[str, Array], list[_Rows]]] = OrderedDict()

    def inputs(self, pictures: Sequence[Picture]) -> dict[str, Array]:
        """All inputs of one denoiser call; rows follow the pictures' order and, within one, its own."""
        members = tuple((picture, picture.rows) for picture in pictures)
        inputs, rows = self._known.get(members) or self._allocated(members)
        self._known.move_to_end(members)
        for picture, first, others, timesteps in rows:
            picture.model_input(out=first)
            others[...] = first
            timesteps.fill(picture.timestep)
        return inputs

    def forget(self) -> None:
        """Drops references to pictures that are gone."""
        self._known.clear()

    def _allocated(self, members: _Members) -> tuple[dict[str, Array], list[_Rows]]:
        constants = [picture.constants[row] for picture, own in members for row in own]
        inputs = {name: np.concatenate([each[name] for each in constants]) for name in constants[0]}
        latents = inputs["latents"] = np.empty((len(constants), *members[0][0].shape[1:]), np.float32)
        timesteps = inputs["timestep"] = np.empty((len(constants), 1), np.float32)
        rows, first = [], 0
        for picture, own in members:
            last = first + len(own)
            rows.append(_Rows(picture, latents[first : first + 1], latents[first + 1 : last], timesteps[first:last]))
            first = last
        self._known[members] = inputs, rows
        if len(self._known) > _REMEMBERED_BATCHES:
            self._known.popitem(last=False)
        return inputs, rows


def advance(pictures: Sequence[Picture], noise_pred: Array, tick: int) -> None:
    """Gives each picture its rows of the denoiser's output, and notes that tick number `tick` served it."""
    first = 0
    for picture in pictures:
        last = first + len(picture.rows)
        picture.advance(noise_pred[first:last])
        picture.last_tick = tick
        first = last


def in_calls(denoise: Denoise, max_rows: int) -> Denoise:
    """A denoiser of any number of rows, by calls of at most `max_rows`.

    One picture may need more rows than a call may have: two with guidance, three with split guidance, and one more
    for each of several people.
    """

    def denoise_all(inputs: Mapping[str, Array]) -> Array:
        rows = len(inputs["timestep"])
        if rows <= max_rows:
            return denoise(inputs)
        parts = ({name: array[i : i + max_rows] for name, array in inputs.items()} for i in range(0, rows, max_rows))
        return np.concatenate([denoise(part) for part in parts])

    return denoise_all


def sample(pictures: Sequence[Picture], denoise: Denoise, max_rows: int) -> Array:
    """Runs pictures of one size to their end in this thread; latents [pictures, channels, height, width]."""
    denoise = in_calls(denoise, max_rows)
    batch, tick = Batch(), 0
    while chosen := select(pictures, max_rows):
        advance(chosen, denoise(batch.inputs(chosen)), tick)
        tick += 1
    return finished_latents(pictures)


def finished_latents(pictures: Sequence[Picture]) -> Array:
    """Latents [pictures, channels, height, width] of pictures of one size."""
    return np.concatenate([picture.latents for picture in pictures])
