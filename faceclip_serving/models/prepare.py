"""What the `prepare` model does: a raw request becomes aligned faces, token ids and a job."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from ..audit.consent import NOT_ASKED, Rule
from ..audit.identities import Identities, Identity
from ..checks.checks import Checks
from ..contract.errors import InvalidRequest, Refused
from ..contract.job import Encoding, Job, Rows
from ..contract.models import FACE_CROPS, RECALLED
from ..contract.parameters import FACE_IMAGES, IDENTITY, IMAGE, PEOPLE_MASKS, GenerationRequest, Need
from ..contract.people import check_files_of
from ..contract.request import parse_request, several_files, warn_of_idle
from ..contract.tensors import Array
from ..contract.variants.variant import Tokens, Variant
from ..face.alignment import align_face
from ..face.detectors import Detector
from ..face.photos import Pixels
from ..face.prepare import thumbnail
from ..face.search import find_faces
from ..sampling.guidance import IDENTITY as IDENTITY_BRANCH
from ..sampling.guidance import PREFIXED_TEXT, TEXT, UNCONDITIONAL, branches_needed, chain_at
from ..sampling.people import person, plain_text_of, rows_of
from .checks import judged
from .edit import Edit, detailed, files_of, prepare_edit
from .notation import Words, read_words
from .people import consents_of, place_people, prepare_shares, tell_consents
from .photographs import came_with, check_files, chosen_faces, covered, photograph_files, recalled_identities, stacked
from .prompts import Encoded, encode_words, prompt_warnings
from .readings import readings

NO_FACE = -1

Encode = Callable[[Tokens, str, bool], Encoded]
"""A request's prompt, by the parameter's name, as one text encoder reads it; whether the face prefix comes first."""


class Row(NamedTuple):
    """What the text encoder reads at once."""

    text: str
    """Of a plan: `negative`, `prompt` or `prefixed`."""
    chunk: int
    face: int
    blank: float | None = None
    """The words of this weight are left blank."""


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
    sealed, masks = several_files(IDENTITY, variant, arrays), several_files(PEOPLE_MASKS, variant, arrays)
    people = job.request.people or []
    counts = {FACE_IMAGES.name: len(photos), IDENTITY.name: len(sealed), PEOPLE_MASKS.name: len(masks)}
    check_files_of(people, counts, variant.limits.faces)
    words = words_of(variant, job.request)
    check_files({**photos, **files, **masks})
    shown = len(photos) + (IMAGE.name in files) + len(sealed)
    consent = rule.of_request(job.request.consent if shown else None)
    job.consent = consent.told()
    consents = consents_of(people, [*photos, *sealed], list(sealed), consent, rule)
    tell_consents(job, people, consents, list(sealed))
    encode = _encoder(variant, tokenizers, words, job.request.long_prompts)
    if any(each["prompt"] is not None for each in people):
        job.audit["people_prompts"] = [
            rule.references.of_text(each["prompt"])[:1] for each in people if each["prompt"] is not None
        ]
    if checks is not None:
        (prompt, *further), negative = _texts_to_judge(variant, words, encode)
        further += [job.request.original_prompt] if job.request.original_prompt else []
        job.checks += judged(job.id, partial(checks.prompt, prompt, "\n".join(negative), shown, further))
    job.request, again = detailed(variant, job.request)
    look = covered(job, consent, consents)

    def look_at_image(pixels: Pixels) -> None:
        """A picture to change is a photograph of whoever is in it."""
        look(IMAGE.name, pixels)
        if checks is not None:
            found = find_faces(pixels, detect) if checks.knows_faces else []
            crops = [align_face(pixels, face.landmarks) for face in found]
            job.checks += judged(job.id, partial(checks.image, thumbnail(pixels), crops))

    faces = chosen_faces(job, photos, detect, checks, look)
    recalled = recalled_identities(job, sealed, identities, checks, rule, consents)
    place_people(job, people, len(photos))
    tell_consents(job, people, consents, list(sealed))
    if recalled and not people and job.request.consent is None:
        job.consent = consents[IDENTITY.name].told()
    job.warnings += [warning for each in words.values() for warning in each.warnings]
    edit = prepare_edit(variant, job.request, arrays, files, detect, look_at_image)
    if edit is not None:
        job.request, job.begin, job.edit = edit.request, edit.begin, {**edit.told, **came_with(files[IMAGE.name])}
        job.warnings += edit.warnings
    begin = min(job.begin or 0, job.request.num_inference_steps if again is None else again)
    met = needs_met(job.request, len(faces), edit, bool(recalled), begin)
    job.warnings += warn_of_idle(variant, arrays, job.request, met)
    if shown and job.request.consent is not None and rule.mode == "off":
        job.warnings.append(
            "consent: this server does not look at records of consent; its operator sets consent=record or require"
        )
    plan = plan_rows(job.request, len(job.face_weights), begin, job.people)
    job.rows = _by_role(plan)
    encoded = {tokens.input: _encode(job, words, {text for text, _, _ in plan}, tokens, encode) for tokens in variant.tokens}
    rows, encodings = lay_out([(text, face) for text, _, face in plan], encoded[variant.text_tokens.input])
    if any(each.rows != [i] or each.weights for i, each in enumerate(encodings)):
        job.encodings = encodings
    job.warnings = list(dict.fromkeys(job.warnings))
    job.stamp("prepared")
    return {
        **({FACE_CROPS.name: stacked(faces)} if faces or not recalled else {}),
        "face_index": np.array([[row.face] for row in rows], np.int64),
        **{
            tokens.input: np.stack([_ids(row, encoded[tokens.input][row.text], tokens, variant) for row in rows])
            for tokens in variant.tokens
        },
        **(edit.tensors if edit is not None else {}),
        **_features(recalled),
        **prepare_shares(variant, job.request, list(masks.values()), job.edit),
        "job": job.encode(),
    }


def needs_met(
    request: GenerationRequest, photographs: int, edit: Edit | None = None, recalled: bool = False, begin: int | None = None
) -> set[Need]:
    """What the request brings of all that its parameters need to have an effect. `recalled`: a sealed identity. `begin`: the first step
    that is run, of the pictures or of faces that are drawn again; None: the first of the pictures."""
    throughout = replace(request, guidance_start=0.0, guidance_end=1.0)
    if begin is None:
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


def plan_rows(
    request: GenerationRequest, faces: int, begin: int = 0, people: Sequence[Sequence[int]] = ()
) -> list[tuple[str, str, int]]:
    """The encodings that a request needs from step number `begin` on: (text, role, face), text being `negative`, `prompt` or `prefixed`,
    or the name of the prompt that is a person's own. `people`: the faces of each, where several are together."""
    plan: list[tuple[str, str, int]] = []
    own = request.people or []
    shown = {IDENTITY_BRANCH: ("prefixed", range(faces), PREFIXED_TEXT)} | {
        person(k): ("prefixed" if own[k]["prompt"] is None else prompt_of(k), numbers, plain_text_of(k))
        for k, numbers in enumerate(people)
    }
    for row in rows_of(branches_needed(request, faces > 0, begin), len(people)):
        if row == UNCONDITIONAL:
            plan.append(("negative", row, NO_FACE))
        elif row == TEXT:
            plan.append(("prompt", row, NO_FACE))
        else:
            text, numbers, plain_text = shown[row]
            plan += [(text, row, face) for face in numbers]
            if request.blend_weight < 1.0:
                plan.append((text, plain_text, NO_FACE))
    return plan


def _by_role(plan: list[tuple[str, str, int]]) -> Rows:
    roles = [role for _, role, _ in plan]
    return {role: [i for i, other in enumerate(roles) if other == role] for role in roles}


_TEXTS = {"negative": ("negative_prompt", False), "prompt": ("prompt", False), "prefixed": ("prompt", True)}
"""Text of a plan -> the parameter whose words it has, and whether the face prefix comes first. Others are the prompts of people."""


def prompt_of(number: int) -> str:
    """What a person's own prompt is called."""
    return f"people[{number}]: prompt"


def words_of(variant: Variant, request: GenerationRequest) -> dict[str, Words]:
    """The prompts of a request without their notation, by parameter. Raises `InvalidRequest`."""
    chunks = request.long_prompts and variant.limits.chunks > 1
    texts = {"prompt": request.prompt, "negative_prompt": request.negative_prompt}
    texts |= {prompt_of(k): each["prompt"] for k, each in enumerate(request.people or ()) if each["prompt"] is not None}
    words = {name: read_words(name, text, request.prompt_weighting, chunks) for name, text in texts.items()}
    for name, each in words.items():
        if name != "negative_prompt" and not each.text.strip():
            raise InvalidRequest(f"{name}: a text is required, got no words; describe the scene within the brackets")
    return words


def lay_out(texts: Sequence[tuple[str, int]], encoded: Mapping[str, Encoded]) -> tuple[list[Row], list[Encoding]]:
    """What the text encoder reads for texts with faces, and how each is put together from that. Rows with blanks come last."""
    rows: list[Row] = []
    encodings = []
    for text, face in texts:
        own = [Row(text, number, face) for number in range(len(encoded[text].chunks))]
        encodings.append(Encoding([len(rows) + i for i in range(len(own))]))
        rows += own
    for i, (text, face) in enumerate(texts):
        of_chunks = [{float(weight) for weight in chunk.weights} - {1.0} for chunk in encoded[text].chunks]
        weights = sorted(set().union(*of_chunks))
        without = [list(encodings[i].rows) for _ in weights]
        for weight, places in zip(weights, without, strict=True):
            for number, found in enumerate(of_chunks):
                if weight in found:
                    places[number] = len(rows)
                    rows.append(Row(text, number, face, weight))
        encodings[i] = replace(encodings[i], weights=weights, without=without)
    return rows, encodings


def _ids(row: Row, encoded: Encoded, tokens: Tokens, variant: Variant) -> Array:
    """A row's ids of one tokenizer; readers of the whole text see no blanks."""
    chunk = encoded.chunk(row.chunk)
    if row.blank is None or tokens != variant.text_tokens:
        return chunk.ids
    return np.where(chunk.weights == np.float32(row.blank), tokens.padding, chunk.ids)


def _encoder(variant: Variant, tokenizers: Sequence[Tokenizer], words: Mapping[str, Words], long_prompts: bool) -> Encode:
    """Encodes a request's prompts, each in each way once."""
    by_input = {tokens.input: tokenizer for tokens, tokenizer in zip(variant.tokens, tokenizers, strict=True)}

    @cache
    def encode(tokens: Tokens, name: str, prefixed: bool) -> Encoded:
        most = variant.limits.chunks if long_prompts and tokens == variant.text_tokens else 1
        return encode_words(by_input[tokens.input], tokens, words[name], prefixed, most)

    return encode


def _texts_to_judge(variant: Variant, words: Mapping[str, Words], encode: Encode) -> tuple[list[str], list[str]]:
    """What the pictures may get of the prompts, those of people too, and of the negative one."""
    found = {}
    for name, each in words.items():
        ways = [prefixed for parameter, prefixed in _TEXTS.values() if parameter == name] or [True]
        found[name] = readings(each, (encode(tokens, name, prefixed) for tokens in variant.tokens for prefixed in ways))
    negative = found.pop("negative_prompt")
    return [text for texts in found.values() for text in texts], negative


def _encode(job: Job, words: Mapping[str, Words], texts: set[str], tokens: Tokens, encode: Encode) -> dict[str, Encoded]:
    """The texts of a plan by one tokenizer."""
    encoded = {}
    for text in sorted(texts):
        name, prefixed = _TEXTS.get(text, (text, True))
        found = encoded[text] = encode(tokens, name, prefixed)
        job.warnings += prompt_warnings(name, found, tokens, words[name].text)
        job.prompt_tokens[name], job.prompt_chunks[name] = found.used, len(found.chunks)
    return encoded


def _features(recalled: Sequence[Identity]) -> dict[str, Array]:
    """Of sealed identities, as tensors; none where there are none."""
    names = recalled[0].features if recalled else ()
    return {RECALLED + name: np.concatenate([each.features[name] for each in recalled]) for name in names}
