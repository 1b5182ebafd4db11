"""A call's keywords -> the tensors of a request.

Which parameters exist, and their datatypes, is read from the server's model configuration; their ranges and defaults are the
server's alone. Refused here is only what the wire cannot carry, or what is no parameter at all.
"""

from __future__ import annotations

import difflib
import inspect
import json
import math
import operator
import os
import secrets
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Literal, TypeVar, get_args

import numpy as np

from .errors import InvalidRequestError, ProtocolError
from .group import Person, encode_people
from .language import NOTHING_SPOKEN, Spoken, spoken
from .language.translators import PromptLanguage
from .parameters import OPTIONS, Parameters
from .people import Identity, encode_identity
from .photos import Photo, collect_photos, encode_mask, encode_photo
from .transport import Array

MAX_SEED = 2**63 - 1
DRAWN_SEEDS = 2**52
"""Drawn seeds are below, so that seed + i is exact wherever JSON's numbers are doubles."""
MAX_ID = 128
MAX_TIMEOUT_S = 1e8
"""Three years; from 1e9 on gRPC's clock overflows."""
OutputType = Literal["pil", "np", "bytes"]


class GenerateOptions(Parameters, total=False):
    """Keywords of a call besides `prompt`: the server's parameters, and the client's own."""

    face_image: Photo | None
    """The person: a path, file bytes, an open file, a PIL image, or an array [height, width, 3], uint8 or float in [0, 1]."""
    face_images: Iterable[Photo] | None
    """Several photographs of the same person, instead of `face_image`."""
    image: Photo | None
    """A picture to change, in the same forms. It comes back in its own size."""
    identity: Identity | bytes | str | os.PathLike[str] | BinaryIO | None
    """The person, sealed by this server, in the place of photographs: what `identity()` returns, its bytes, or the path of its file."""
    mask_image: Photo | None
    """Where `image` is drawn anew: white there, black elsewhere, of the same size."""
    people: Sequence[Person] | str | None
    """Up to four people in one picture, each with a place; or the server's JSON, with face_images, identity and people_masks beside it.
    `face_index` and `face_boxes` are of all their photographs in order, unless a Person has their own."""
    people_masks: Iterable[Photo] | None
    """The masks of such JSON."""
    prompt_language: PromptLanguage | None
    """`auto` (default): prompts in Chinese, or what a plug-in knows, are put into English; `en`: they are English; `off`: as they are."""
    generator: Any
    """Instead of `seed`: a torch.Generator (its initial seed counts), a numpy Generator (draws a seed), or an int."""
    output_type: OutputType
    """Form of `.images`: PIL images, one float32 array [images, height, width, 3] in [0, 1], or encoded files."""
    callback_on_step_end: Callable[..., Any] | None
    """Called as in diffusers: (pipe, step, timestep, callback_kwargs). Needs the streaming model."""
    timeout_s: float | None
    """Seconds until `DeadlineExceededError`; None: no limit. Left out: the pipeline's."""
    retries: int
    """How often to ask again a server that is too busy. Default 0."""
    request_id: str
    """Names the call in the server's log and traces, in `details` and errors; by it, `cancel` ends the call. Default: drawn."""


_Function = TypeVar("_Function", bound=Callable[..., Any])


def with_parameters(function: _Function) -> _Function:
    """Adds the server's parameters, a line each, to a docstring."""
    lines = (f"{option.name}: {option.doc}" for option in OPTIONS)
    function.__doc__ = "\n".join((inspect.cleandoc(function.__doc__ or ""), "", *lines))
    return function


_CLIENT_SIDE = (
    "face_image", "prompt_language", "generator", "output_type", "callback_on_step_end", "timeout_s", "retries", "request_id"
)  # fmt: skip
"""Keywords that are not tensors of the request by themselves."""

_JSON = ("scheduler_options", "consent")
"""Parameters that are JSON, and may be given as what it says."""

_SEVERAL = {option.name: option.values for option in OPTIONS if option.values != 1}
"""Parameters that are several numbers -> how many; 0: any number."""

_PICTURES = ("image", "mask_image")
"""Parameters that are files of one picture."""

_FILES = ("face_images", "identity", "people_masks", *_PICTURES)
"""Parameters that are files."""

_SYNONYMS = {
    "init_image": "image",
    "mask_prompt": "mask",
    "denoising_strength": "strength",
    "ip_adapter_image": "face_image",
    "id_image": "face_image",
    "images": "face_images",
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "num_images": "num_images_per_prompt",
    "batch_size": "num_images_per_prompt",
    "sampler": "scheduler",
    "callback": "callback_on_step_end",
    "timeout": "timeout_s",
}


@dataclass(frozen=True)
class Call:
    """One call, ready to be sent."""

    inputs: dict[str, Array]
    output_type: str
    callback: Callable[..., Any] | None
    timeout_s: float | None
    retries: int
    request_id: str
    repeatable: bool = True
    """Whether it gives the same however often it is sent: it has a seed, or draws nothing."""
    spoken: Spoken = NOTHING_SPOKEN
    """What was put into English."""


def prepare_call(
    model: str, accepted: Mapping[str, str], prompt: str, options: Mapping[str, Any], default_timeout_s: float | None
) -> Call:
    """`accepted`: input name -> datatype of the model to be called. Unknown keywords and wrong types are a `TypeError`."""
    _refuse_unknown(model, accepted, options)
    output_type = options.get("output_type", "pil")
    if output_type not in get_args(OutputType):
        raise InvalidRequestError(f"output_type: expected one of {', '.join(get_args(OutputType))}, got {output_type!r}")
    prompt, options, english = _in_english(accepted, prompt, options)
    together: dict[str, list[bytes]] = {}
    if options.get("people") is not None and not isinstance(options["people"], str):
        options, together = _with_people(options)
    values = {name: options[name] for name in options if name in accepted and name not in _FILES}
    values |= {name: json.dumps(values[name]) for name in _JSON if isinstance(values.get(name), Mapping)}
    values["seed"] = _seed(options.get("seed"), options.get("generator"))
    if values["seed"] is None and "seed" in accepted:
        values["seed"] = secrets.randbelow(
            DRAWN_SEEDS
        )  # drawn here, so that a call whose server is lost can be repeated elsewhere
    inputs = {"prompt": encode("prompt", "BYTES", prompt)}
    inputs |= {name: encode(name, accepted[name], value) for name, value in values.items() if value is not None}
    if photos := collect_photos(options.get("face_image"), options.get("face_images")):
        inputs["face_images"] = _bytes_array(photos)
    pictures = {name: options[name] for name in _PICTURES if options.get(name) is not None}
    encoders = {"image": encode_photo, "mask_image": encode_mask}
    inputs |= {name: _bytes_array([encoders[name](name, picture)]) for name, picture in pictures.items()}
    if options.get("identity") is not None:
        several = options["identity"] if isinstance(options["identity"], (list, tuple)) else [options["identity"]]
        inputs["identity"] = _bytes_array([encode_identity(each) for each in several])
    if options.get("people_masks") is not None:
        inputs["people_masks"] = _bytes_array([encode_mask("people_masks", each) for each in options["people_masks"]])
    inputs |= {name: _bytes_array(files) for name, files in together.items()}
    return Call(
        inputs=inputs,
        output_type=output_type,
        callback=options.get("callback_on_step_end"),
        timeout_s=check_timeout(options.get("timeout_s", default_timeout_s)),
        retries=_integer("retries", options.get("retries", 0), 0, 1000),
        request_id=check_request_id(options.get("request_id")),
        repeatable="seed" in inputs,
        spoken=english,
    )


def texts_of(prompt: str, options: Mapping[str, Any]) -> dict[str, str]:
    """What of a call may be in any language: its prompt, its negative prompt and those of people. Parameter -> text."""
    texts = {"prompt": prompt, "negative_prompt": options.get("negative_prompt")}
    texts |= {f"people[{i}].prompt": each.prompt for i, each in enumerate(_people(options)) if isinstance(each, Person)}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def language_of(options: Mapping[str, Any]) -> str:
    """The `prompt_language` of a call."""
    return options.get("prompt_language") or "auto"


def _people(options: Mapping[str, Any]) -> Sequence[Any]:
    return options["people"] if isinstance(options.get("people"), (list, tuple)) else ()


def _in_english(accepted: Mapping[str, str], prompt: str, options: Mapping[str, Any]) -> tuple[str, Mapping[str, Any], Spoken]:
    """The call with its texts as a network is to read them."""
    people, texts = _people(options), texts_of(prompt, options)
    english = spoken(texts, language_of(options))
    if not english.texts:
        return prompt, options, english
    originals = [options.get("original_prompt"), *(texts[name] for name in english.texts if name != "negative_prompt")]
    changed: dict[str, Any] = {name: english.texts[name] for name in ("negative_prompt",) if name in english.texts}
    if people:
        told = [english.texts.get(f"people[{i}].prompt") for i in range(len(people))]
        changed["people"] = [
            each if text is None else replace(each, prompt=text) for each, text in zip(people, told, strict=True)
        ]
    if "original_prompt" in accepted:  # its checks may know what was lost in translation
        changed["original_prompt"] = "\n".join(each for each in originals if each)
    return english.texts.get("prompt", prompt), {**options, **changed}, english


def _with_people(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[bytes]]]:
    """The options of a call with people, and the files that these bring. Faces are chosen by the call or by each of them."""
    for name in ("face_image", "face_images", "identity", "people_masks"):
        if options.get(name) is not None:
            raise TypeError(f"{name}: give it to a Person of people, or people as JSON")
    group = encode_people(options["people"])
    if group.chosen:
        for name in ("face_index", "face_boxes"):
            if options.get(name) is not None:
                raise TypeError(
                    f"{name}: give it to the call, for the photographs of all people in order, or to each Person; got both"
                )
    return {**options, "people": group.text, **group.chosen}, dict(group.files)


def prepare_look(accepted: Mapping[str, str], photos: list[bytes], options: Mapping[str, Any], timeout_s: float | None) -> Call:
    """A call of the model that looks at photographs. `options`: its parameters, and timeout_s, retries, request_id."""
    unknown = [name for name in options if name not in {*accepted, "timeout_s", "retries", "request_id"} or name in _FILES]
    if unknown:
        known = sorted({*accepted, "timeout_s", "retries", "request_id"} - {*_FILES, "make_identity"})
        raise TypeError(f"unknown parameter '{unknown[0]}'; known: {', '.join(known)}")
    options = {**options, **{name: json.dumps(options[name]) for name in _JSON if isinstance(options.get(name), Mapping)}}
    inputs = {
        name: encode(name, accepted[name], value) for name, value in options.items() if name in accepted and value is not None
    }
    return Call(
        inputs={**inputs, "face_images": _bytes_array(photos)},
        output_type="bytes",
        callback=None,
        timeout_s=check_timeout(options.get("timeout_s", timeout_s)),
        retries=_integer("retries", options.get("retries", 0), 0, 1000),
        request_id=check_request_id(options.get("request_id")),
    )


def check_request_id(request_id: object) -> str:
    """The id as it is sent; None: one that nobody else has, or guesses."""
    if request_id is None:
        return uuid.uuid4().hex
    if not isinstance(request_id, str):
        raise TypeError(f"request_id: expected a text, got {type(request_id).__name__}")
    if not 0 < len(request_id) <= MAX_ID or not request_id.isprintable() or not request_id.isascii():
        raise InvalidRequestError(f"request_id: expected 1 to {MAX_ID} printable ASCII characters, got {request_id[:80]!r}")
    return request_id


def encode(name: str, datatype: str, value: Any) -> Array:
    """The tensor of one parameter value; [1], but for those of `_SEVERAL`."""
    if datatype == "BYTES":
        if not isinstance(value, str):
            cure = "; make one call for each: the server batches them" if isinstance(value, (list, tuple)) else ""
            raise TypeError(f"{name}: expected a text, got {type(value).__name__}{cure}")
        try:
            return _bytes_array([value.encode("utf-8")])
        except UnicodeEncodeError as error:
            raise InvalidRequestError(f"{name}: expected text that UTF-8 can carry ({error.reason} at {error.start})") from None
    if datatype == "BOOL":
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{name}: expected True or False, got {value!r}")
        return np.array([value], np.bool_)
    if datatype in ("INT32", "INT64"):
        dtype = np.dtype(datatype.lower())
        limits = np.iinfo(dtype)
        values = _several(name, value) if name in _SEVERAL else [value]
        return np.array([_integer(name, each, int(limits.min), int(limits.max)) for each in values], dtype)
    if datatype == "FP32":
        values = _several(name, value) if name in _SEVERAL else [value]
        return np.array([_float32(name, each) for each in values], np.float32)
    raise ProtocolError(f"{name}: the server expects {datatype}, which this client cannot send; update faceclip-client")


def from_text(name: str, accepted: Mapping[str, str], text: str) -> Any:
    """A parameter's value from its text, as on a command line. `accepted`: input name -> datatype."""
    settable = {*accepted} - {*_FILES}
    if name not in settable:
        raise InvalidRequestError(f"{name}: expected one of {', '.join(sorted(settable))}")
    datatype = accepted[name]
    try:
        if datatype == "BOOL":
            return {"true": True, "false": False}[text.lower()]
        if name in _SEVERAL:
            return [(int if datatype.startswith("INT") else float)(each) for each in text.split(",")]
        return int(text) if datatype.startswith("INT") else float(text) if datatype.startswith("FP") else text
    except (KeyError, ValueError):
        kind = "true or false" if datatype == "BOOL" else "an integer" if datatype.startswith("INT") else "a number"
        raise InvalidRequestError(f"{name}: expected {kind}, got '{text}'") from None


def check_timeout(timeout_s: Any) -> float | None:
    """A limit in seconds; None: no limit."""
    if timeout_s is None:
        return None
    if isinstance(timeout_s, (bool, str)) or not math.isfinite(float(timeout_s)) or not 0 < float(timeout_s) <= MAX_TIMEOUT_S:
        expected = f"seconds above 0 and at most {MAX_TIMEOUT_S:.0f}, or None for no limit"
        raise InvalidRequestError(f"timeout_s: expected {expected}, got {timeout_s!r}")
    return float(timeout_s)


def _refuse_unknown(model: str, accepted: Mapping[str, str], options: Mapping[str, Any]) -> None:
    known = {*accepted, *_CLIENT_SIDE}
    for name in options:
        if name in known or (options[name] is None and name in GenerateOptions.__annotations__):
            continue
        if name in GenerateOptions.__annotations__:
            raise TypeError(f"{name}: model '{model}' of this server has no such parameter; leave it out")
        close = [_SYNONYMS[name]] if name in _SYNONYMS else difflib.get_close_matches(name, sorted(known), n=1)
        advice = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(sorted(known))}"
        raise TypeError(f"unknown parameter '{name}'; {advice}")


def _seed(seed: Any, generator: Any) -> int | None:
    """A seed of [0, 2^63-1]; None: the caller wants none in particular."""
    if generator is None:
        return None if seed is None else _integer("seed", seed, 0, MAX_SEED)
    if seed is not None:
        raise TypeError("seed and generator: give one of them, not both")
    if hasattr(generator, "initial_seed"):  # torch.Generator; its seeds have 64 bits
        return int(generator.initial_seed()) & MAX_SEED
    if isinstance(generator, np.random.Generator):
        return int(generator.integers(DRAWN_SEEDS))
    if isinstance(generator, (list, tuple)):
        raise TypeError("generator: expected one, got several; picture i of a call uses seed + i")
    return _integer("generator", generator, 0, MAX_SEED)


def _integer(name: str, value: Any, low: int, high: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {value!r}") from None
    if isinstance(value, bool):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    if not low <= number <= high:
        raise InvalidRequestError(f"{name}: expected an integer from {low} to {high}, got {number}")
    return number


def _several(name: str, value: Any) -> list[Any]:
    """The numbers of a list. Of a parameter of any number also a number alone, and lists in the list."""
    count = _SEVERAL[name]
    if not count and np.isscalar(value) and not isinstance(value, (str, bytes)):
        value = [value]
    try:
        values = [] if isinstance(value, (str, bytes)) else list(value)
        if not count:
            values = [each for item in values for each in ([item] if np.isscalar(item) else list(item))]
    except TypeError:
        values = []
    if len(values) != count if count else not values:
        raise TypeError(f"{name}: expected {count or 'some'} numbers, got {value!r}")
    return values


def _float32(name: str, value: Any) -> float:
    try:
        if isinstance(value, (bool, str, bytes)):
            raise TypeError
        number = float(value)
    except (TypeError, OverflowError):
        raise TypeError(f"{name}: expected a number, got {value!r}") from None
    if math.isfinite(number) and abs(number) > np.finfo(np.float32).max:
        raise InvalidRequestError(f"{name}: expected a number that fits in 32 bits, got {number:g}")
    return number


def _bytes_array(items: list[bytes]) -> Array:
    array = np.empty(len(items), np.object_)
    array[:] = items
    return array
