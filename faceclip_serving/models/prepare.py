"""What the `prepare` model does: a raw request becomes aligned faces, token ids and a job."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from tokenizers import Tokenizer

from ..audit.consent import NOT_ASKED, Rule
from ..audit.identities import Identities
from ..checks.checks import Checks
from ..contract.errors import Refused
from ..contract.job import Job, Rows
from ..contract.models import RECALLED
from ..contract.parameters import IDENTITY, IMAGE, GenerationRequest, Need
from ..contract.request import parse_request, warn_of_idle
from ..contract.tensors import Array
from ..contract.variants.architectures import FACE_SIZE
from ..contract.variants.variant import Variant
from ..face.alignment import align_face
from ..face.detectors import Detector
from ..face.photos import Pixels
from ..face.prepare import PreparedFace, thumbnail
from ..face.search import find_faces
from ..sampling.guidance import PREFIXED_TEXT, TEXT, UNCONDITIONAL, branches_needed, chain_at
from .checks import judged
from .edit import Edit, files_of, prepare_edit
from .photographs import came_with, check_files, chosen_faces, covered, photograph_files, recalled_identity
from .prompts import Encoded, encode_prompt, prompt_warnings

NO_FACE = -1


def prepare(
    variant: Variant,
    tokenizers: Sequence[Tokenizer],
    detect: Detector,
    digest: str,
    arrays: Mapping[str, Array],
    place: str = "",
    deadline: float | None = None,
    id: str = "",
    received: float | None = None,
    checks: Checks | None = None,
    rule: Rule = NOT_ASKED,
    identities: Identities | None = None,
) -> dict[str, Array]:
    """The outputs of `prepare` for one request; `received`: when it came, monotonic seconds. `checks`: None for measurements in one
    process, where nothing is refused; `rule`: of consent; `identities`: None where none are taken.

    Raises `InvalidRequest`, and `Refused` where a rule says no.
    """
    job = Job(parse_request(variant, arrays), {}, [], place, deadline, digest, id)
    job.clock["received"] = time.monotonic() if received is None else received
    try:
        return _prepare(variant, tokenizers, detect, arrays, checks, rule, identities, job)
    except Refused as error:
        error.audit = job.for_audit(error.audit)
        raise


def _prepare(
    variant: Variant,
    tokenizers: Sequence[Tokenizer],
    detect: Detector,
    arrays: Mapping[str, Array],
    checks: Checks | None,
    rule: Rule,
    identities: Identities | None,
    job: Job,
) -> dict[str, Array]:
    photos, files = photograph_files(variant, arrays), files_of(arrays)
    check_files({**photos, **files})
    shown = len(photos) + (IMAGE.name in files) + (IDENTITY.name in arrays)
    consent = rule.of_request(job.request.consent if shown else None)
    job.consent = consent.told()
    if checks is not None:
        job.checks += judged(job.id, partial(checks.prompt, job.request.prompt, job.request.negative_prompt, shown))
    look = covered(job, consent)

    def look_at_image(pixels: Pixels) -> None:
        """A picture to change is a photograph of whoever is in it."""
        look(IMAGE.name, pixels)
        if checks is not None:
            found = find_faces(pixels, detect) if checks.knows_faces else []
            crops = [align_face(pixels, face.landmarks) for face in found]
            job.checks += judged(job.id, partial(checks.image, thumbnail(pixels), crops))

    identity = recalled_identity(job, arrays, identities, checks, rule)
    faces = [] if identity is not None else chosen_faces(job, photos, detect, checks, look)
    people = len(job.face_weights)
    edit = prepare_edit(variant, job.request, arrays, files, detect, look_at_image)
    if edit is not None:
        job.request, job.begin, job.edit = edit.request, edit.begin, {**edit.told, **came_with(files[IMAGE.name])}
        job.warnings += edit.warnings
    job.warnings += warn_of_idle(variant, arrays, job.request, needs_met(job.request, len(faces), edit, identity is not None))
    if shown and job.request.consent is not None and rule.mode == "off":
        job.warnings.append(
            "consent: this server does not look at records of consent; its operator sets consent=record or require"
        )
    plan = plan_rows(job.request, people, job.begin or 0)
    job.rows = _by_role(plan)
    ids = {}
    for tokens, tokenizer in zip(variant.tokens, tokenizers, strict=True):
        encoded = _encode(job, {kind for kind, _, _ in plan}, tokenizer, tokens_of=tokens.input, variant=variant)
        ids[tokens.input] = np.stack([encoded[kind].ids for kind, _, _ in plan])
    job.warnings = list(dict.fromkeys(job.warnings))
    job.stamp("prepared")
    return {
        "aligned_faces": _stack(faces),
        "face_index": np.array([[face] for _, _, face in plan], np.int64),
        **ids,
        **(edit.tensors if edit is not None else {}),
        **({} if identity is None else {RECALLED + name: array for name, array in identity.features.items()}),
        "job": job.encode(),
    }


def needs_met(request: GenerationRequest, photographs: int, edit: Edit | None = None, recalled: bool = False) -> set[Need]:
    """What the request brings of all that its parameters need to have an effect. `recalled`: a sealed identity."""
    throughout = replace(request, guidance_start=0.0, guidance_end=1.0)
    begin = 0 if edit is None else edit.begin
    somebody = photographs > 0 or recalled
    met = {
        Need.FACE: somebody,
        Need.PHOTOGRAPH: photographs > 0,
        Need.FOUND: photographs > 0 and not request.face_aligned,
        Need.FACES: photographs > 1,
        Need.GUIDANCE: UNCONDITIONAL in branches_needed(request, somebody, begin),
        Need.SCALES: any(chain_at(throughout, somebody, step).scales for step in range(begin, request.num_inference_steps)),
        Need.NO_TEXT_SCALE: request.text_guidance_scale is None,
        Need.SOMEBODY: somebody or edit is not None,
        Need.IMAGE: edit is not None,
        Need.MASK: edit is not None and edit.masked,
        Need.NAMED_MASK: request.mask != "none",
    }
    return {need for need, holds in met.items() if holds}


def plan_rows(request: GenerationRequest, faces: int, begin: int = 0) -> list[tuple[str, str, int]]:
    """The encodings that a request needs from step number `begin` on: (text, role, face), text being `negative`, `prompt` or `prefixed`."""
    plan: list[tuple[str, str, int]] = []
    for branch in branches_needed(request, faces > 0, begin):
        if branch == UNCONDITIONAL:
            plan.append(("negative", branch, NO_FACE))
        elif branch == TEXT:
            plan.append(("prompt", branch, NO_FACE))
        else:
            plan += [("prefixed", branch, face) for face in range(faces)]
            if request.blend_weight < 1.0:
                plan.append(("prefixed", PREFIXED_TEXT, NO_FACE))
    return plan


def _by_role(plan: list[tuple[str, str, int]]) -> Rows:
    roles = [role for _, role, _ in plan]
    return {role: [i for i, other in enumerate(roles) if other == role] for role in roles}


def _encode(job: Job, kinds: set[str], tokenizer: Tokenizer, tokens_of: str, variant: Variant) -> dict[str, Encoded]:
    tokens = next(tokens for tokens in variant.tokens if tokens.input == tokens_of)
    request = job.request
    texts = {
        "negative": ("negative_prompt", request.negative_prompt, False),
        "prompt": ("prompt", request.prompt, False),
        "prefixed": ("prompt", request.prompt, True),
    }
    encoded = {}
    for kind in sorted(kinds):
        name, text, prefixed = texts[kind]
        encoded[kind] = encode_prompt(tokenizer, tokens, text, prefixed)
        job.warnings += prompt_warnings(name, encoded[kind], tokens, text)
        job.prompt_tokens[name] = encoded[kind].used
    return encoded


def _stack(faces: Sequence[PreparedFace]) -> Array:
    if not faces:  # a tensor needs a row; no row of the text encoder refers to it
        return np.zeros((1, 3, FACE_SIZE, FACE_SIZE), np.float32)
    return np.stack([face.crop for face in faces])
