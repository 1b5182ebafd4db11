"""`FaceCLIPPipeline`, and what it shares with its asyncio form: everything but the waiting."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image

from .address import split_target
from .errors import FaceCLIPError, ModelNotFoundError, ProtocolError, ServerUnavailableError
from .grpc_transport import GrpcTransport
from .habits import DiffusersHabits, warn_not_here
from .marks.verify import Report
from .people import Face, Identity, read_faces, read_identity
from .photos import Photo, collect_photos, encode_photo
from .recipes import find
from .request import Call, GenerateOptions, check_request_id, check_timeout, prepare_call, prepare_look, with_parameters
from .result import OUTPUTS, FaceCLIPOutput, Progress, read_output, read_progress
from .retry import Retry
from .served import (
    CANCEL_SUFFIX,
    CONTROL_TIMEOUT_S,
    DEFAULT_MODEL,
    FACES_SUFFIX,
    STREAM_SUFFIX,
    ServedModel,
    choose_model,
    describe,
)
from .transport import Arrays, ModelConfig, Transport
from .verify import verify_picture

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self, Unpack

_Result = TypeVar("_Result")


class RemotePipeline(DiffusersHabits):
    """A served model: how calls to it are built and its answers are read."""

    def __init__(self, address: str, config: ServedModel, timeout_s: float | None) -> None:
        self.address = address
        self.config = config
        self._timeout_s = check_timeout(timeout_s)
        self._stream_config: ModelConfig | None = None
        self._faces_config: ModelConfig | None = None
        self._interrupt = False

    @property
    def defaults(self) -> Mapping[str, Any]:
        """What the server uses for parameters that a call leaves out."""
        return self.config.defaults

    @property
    def stream_model(self) -> str:
        """Name of the streaming twin; the server may not have it."""
        return self.config.model + STREAM_SUFFIX

    @property
    def cancel_model(self) -> str:
        """Name of the model that ends calls by their id."""
        return self.config.model + CANCEL_SUFFIX

    @property
    def faces_model(self) -> str:
        """Name of the model that looks at photographs and draws nothing."""
        return self.config.model + FACES_SUFFIX

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.address}, model '{self.config.model}', variant '{self.config.variant}'>"

    def _prepare(self, prompt: str, options: Mapping[str, Any]) -> Call:
        return prepare_call(self.config.model, self.config.inputs, prompt, options, self._timeout_s)

    @property
    def interrupt(self) -> bool:
        """As in diffusers: whether a callback stopped the last call by `pipe._interrupt = True`. Its result has no pictures."""
        return self._interrupt

    def _prepare_stream(self, stream: ModelConfig | None, prompt: str, options: Mapping[str, Any]) -> Call:
        self._interrupt = False
        if stream is None:
            raise ModelNotFoundError(
                f"{self.address} has no streaming model '{self.stream_model}', so it tells no steps; "
                "leave out callback_on_step_end, and call the pipeline instead of stream()"
            )
        return prepare_call(stream.name, stream.inputs, prompt, options, self._timeout_s)

    def _prepare_faces(self, config: ModelConfig, photo: Photo, options: Mapping[str, Any]) -> Call:
        return prepare_look(config.inputs, [encode_photo("photo", photo)], options, self._timeout_s)

    def _prepare_identity(
        self, config: ModelConfig, photos: Photo | Iterable[Photo], expires: datetime | str | None, options: Mapping[str, Any]
    ) -> Call:
        one = isinstance(photos, (str, bytes, os.PathLike, Image.Image, np.ndarray)) or hasattr(photos, "read")
        files = collect_photos(photos if one else None, None if one else photos)  # type: ignore[arg-type]
        ends = expires.isoformat() if isinstance(expires, datetime) else expires
        return prepare_look(config.inputs, files, {**options, "expires": ends, "make_identity": True}, self._timeout_s)

    def _read(self, call: Call, arrays: Arrays) -> FaceCLIPOutput:
        output = read_output(arrays, call.output_type, self.config.model, self.config.variant, self.address)
        if call.spoken.details:
            told = {"prompt_language": call.spoken.details, "warnings": [*call.spoken.warnings, *output.warnings]}
            output.details.update(told)
        return output

    def _read_event(self, call: Call, arrays: Arrays) -> Progress | FaceCLIPOutput:
        return read_progress(arrays) or self._read(call, arrays)

    def _report(self, call: Call, event: Progress | FaceCLIPOutput) -> Any:
        """Calls the callback for a step; diffusers counts steps from 0, as they end. Returns what the callback returns."""
        if call.callback is None or not isinstance(event, Progress) or event.step < 1:
            return None
        return call.callback(self, event.step - 1, event.timestep, {"progress": event, "preview": event.preview})

    def _stopped(self, call: Call, event: Progress | FaceCLIPOutput) -> FaceCLIPOutput | None:
        """Asked after each callback. What a call returns that the callback ended by `pipe._interrupt = True`, as in diffusers."""
        if not self._interrupt or not isinstance(event, Progress):
            return None
        why = f"the callback stopped the run after step {event.step} of {event.total}: there are no pictures"
        images: Any = np.zeros((0, 0, 0, 3), np.float32) if call.output_type == "np" else []
        return FaceCLIPOutput(images, [], {"sampling": {"ticks": event.step}, "warnings": [why]}, [], [])

    def _result(self, event: Progress | FaceCLIPOutput | None) -> FaceCLIPOutput:
        if not isinstance(event, FaceCLIPOutput):
            raise ProtocolError(f"model '{self.stream_model}': the stream ended without pictures")
        return event


class FaceCLIPPipeline(RemotePipeline):
    """Photo and prompt -> pictures of the same person, on a FaceCLIP server, in the manner of a diffusers pipeline.

        pipe = FaceCLIPPipeline.from_pretrained("localhost:8001")
        result = pipe("portrait of an astronaut, studio light", face_image="me.jpg", seed=42)
        result.images[0].save("astronaut.png")

    May be used by several threads: the server merges their calls. A context manager; `close()` ends the connection.
    """

    def __init__(self, transport: Transport, config: ServedModel, timeout_s: float | None = 600.0) -> None:
        super().__init__(transport.address, config, timeout_s)
        self._transport = transport

    @classmethod
    def from_pretrained(
        cls,
        url_or_variant: str | Sequence[str] | None = None,
        *,
        model: str | None = None,
        timeout_s: float | None = 600.0,
        headers: Mapping[str, str] | None = None,
        root_certificates: str | Path | None = None,
        token: str | None = None,
        affinity: bool = False,
        torch_dtype: object = None,
        transport: Transport | None = None,
    ) -> Self:
        """Connects, and asks the server what it serves.

        `url_or_variant`: "host:port", "grpc://host:port", "grpcs://host:port" (TLS), "dns:///host:port" (all servers of a name),
        several of them, as a list or with commas, or the name of a variant, which is looked for at $FACECLIP_URL (else
        localhost:8001). `model`: name on the server, where it has several. `timeout_s`: limit of a call, seconds; None: none.
        `headers`: sent with every call. `root_certificates`: PEM file of the authority that a grpcs:// server is checked against.
        `token`: sent with every call as a bearer token; None: $FACECLIP_TOKEN, if that is set. `affinity`: tell proxies by a header
        which calls have the same faces, so that one server may remember them. `transport`: instead of gRPC; it stays open if this
        call fails.
        `torch_dtype`: taken for diffusers' sake, without effect.
        """
        if torch_dtype is not None:
            warn_not_here("torch_dtype=")
        addresses, variant = split_target(url_or_variant)
        own = transport is None
        transport = transport or GrpcTransport(addresses, headers, root_certificates, token, affinity)
        try:
            return cls(transport, find_model(transport, model, variant), timeout_s)
        except BaseException:
            if own:
                transport.close()
            raise

    @with_parameters
    def __call__(self, prompt: str, **options: Unpack[GenerateOptions]) -> FaceCLIPOutput:
        """One request. `prompt`: what the picture shows. Further keywords, each optional, are those of `GenerateOptions`:

        face_image or face_images, identity, people, image, mask_image, prompt_language, generator,
        output_type="pil" | "np" | "bytes", callback_on_step_end,
        timeout_s, retries, and the server's parameters, listed below. Whatever else the server's model takes (`pipe.config.inputs`) may
        be given as well.

        Raises `InvalidRequestError`, `ServerUnavailableError`, `ServerBusyError`, `DeadlineExceededError`, `ServerError`.
        """
        if options.get("callback_on_step_end") is not None:
            return self._result(_last(self.stream(prompt, **options)))
        call = self._prepare(prompt, options)

        def attempt(limit_s: float | None) -> Arrays:
            return self._transport.infer(self.config.model, call.inputs, OUTPUTS, limit_s, call.request_id)

        with named(call):
            return self._read(call, _retrying(attempt, Retry(call.timeout_s, call.retries, call.repeatable)))

    def edit(self, image: Photo, /, prompt: str, **options: Unpack[GenerateOptions]) -> FaceCLIPOutput:
        """A call that changes `image`, which comes back in its own size. Further keywords are those of a call; of these

        mask="face" | "head", or mask_image, say where (left out: everywhere), strength how much, face_image who it becomes.
        """
        options["image"] = image
        return self(prompt, **options)

    def recipe(self, name: str, /, **options: Any) -> FaceCLIPOutput:
        """A call by a recipe: `pipe.recipe("game-character", style="cyberpunk", face_image="me.jpg")`. `options`: its choices, and keywords
        of a call, which count before the recipe's; `prompt`: words beside its own. `faceclip recipes` lists them."""
        return self(**find(name).call(options))

    def stream(self, prompt: str, **options: Unpack[GenerateOptions]) -> Generator[Progress | FaceCLIPOutput, None, None]:
        """The same call, step by step: a `Progress` for each, at last the result. Closing the generator cancels the request."""
        self.can_stream()
        return self._events(self._prepare_stream(self._stream_config, prompt, options))

    def can_stream(self) -> bool:
        """Whether the server has the streaming twin of this model."""
        if self._stream_config is None:
            try:
                self._stream_config = self._transport.model_config(self.stream_model, CONTROL_TIMEOUT_S)
            except ModelNotFoundError:
                return False
        return True

    def faces(self, photo: Photo, **options: Any) -> list[Face]:
        """The faces that a photograph shows, the largest first; possibly none. Draws nothing, and the server keeps nothing.

        A face's number is what `face_index` takes, its `fractions` what `face_boxes` takes. `options`: timeout_s, retries, request_id,
        tenant, priority. Raises as a call does.
        """
        call = self._prepare_faces(self._faces_model(), photo, options)
        return read_faces(self._asked(call), self.faces_model)

    def identity(self, photos: Photo | Iterable[Photo], *, expires: datetime | str | None = None, **options: Any) -> Identity:
        """The person of one or several photographs, sealed for later calls: pass it as `identity` in the place of photographs.

        The server keeps nothing, and opens what it, or a server with its key, has sealed. `expires`: a time with its zone from which
        on it is refused. `options`: face_index, face_boxes, face_aligned, face_weighting, consent, remember, tenant, priority,
        timeout_s, retries, request_id, as of a call. Raises as a call does.
        """
        call = self._prepare_identity(self._faces_model(), photos, expires, options)
        return read_identity(self._asked(call), self.faces_model)

    def _asked(self, call: Call) -> Arrays:
        def attempt(limit_s: float | None) -> Arrays:
            return self._transport.infer(self.faces_model, call.inputs, (), limit_s, call.request_id)

        with named(call):
            return _retrying(attempt, Retry(call.timeout_s, call.retries, call.repeatable))

    def _faces_model(self) -> ModelConfig:
        if self._faces_config is None:
            self._faces_config = self._transport.model_config(self.faces_model, CONTROL_TIMEOUT_S)
        return self._faces_config

    def cancel(self, request_id: str) -> bool:
        """Ends a call that was made with this `request_id`, here or elsewhere: it raises `ServerError`. Whether there was one.

        Whoever closes a stream, is interrupted or runs out of time needs no such call: the server notices.
        """
        return self._transport.cancel(self.cancel_model, check_request_id(request_id), CONTROL_TIMEOUT_S)

    def verify(self, picture: bytes | str | Path, **options: Any) -> Report:
        """Which marks a picture bears, the invisible one asked of this server; see `verify_picture`."""
        return verify_picture(picture, self._transport, **{"model": self.config.model, **options})

    def close(self) -> None:
        """Ends the connection. The pipeline cannot be used afterwards."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _events(self, call: Call) -> Generator[Progress | FaceCLIPOutput, None, None]:
        def attempt(limit_s: float | None) -> tuple[Generator[Arrays, None, None], Arrays | None]:
            responses = self._transport.stream(self.stream_model, call.inputs, limit_s, call.request_id)
            return responses, next(responses, None)  # once a response is here, the work has begun: no further attempt

        retry = Retry(call.timeout_s, call.retries, call.repeatable)
        with named(call):
            responses, arrays = _retrying(attempt, retry)
            event = None
            try:
                while arrays is not None:
                    event = self._read_event(call, arrays)
                    self._report(call, event)
                    yield event
                    if stopped := self._stopped(call, event):
                        yield stopped  # leaving the responses behind ends the server's work
                        return
                    try:
                        arrays = next(responses, None)
                    except FaceCLIPError as error:  # its server was lost: it begins again, and so do its steps
                        time.sleep(retry.delay_s(error))
                        responses, arrays = _retrying(attempt, retry)
            finally:
                responses.close()
            self._result(event)


@contextmanager
def named(call: Call) -> Iterator[None]:
    """Errors within bear the call's id, by which the server's log and traces are searched."""
    try:
        yield
    except FaceCLIPError as error:
        error.request_id = call.request_id
        raise


def find_model(transport: Transport, model: str | None, variant: str | None) -> ServedModel:
    """The served model that is called `model`, or serves `variant`. Neither given: the default one, or the only one."""
    retry = Retry(CONTROL_TIMEOUT_S, repeatable=True)
    likely = model or (DEFAULT_MODEL if variant is None else None)
    if likely is not None:
        try:
            return describe(_retrying(lambda limit_s: transport.model_config(likely, limit_s), retry))
        except ModelNotFoundError:
            pass  # the list below makes the message
    try:
        ready = [state.name for state in _retrying(transport.models, retry) if state.ready]
    except ServerUnavailableError as error:
        raise with_variant(error, variant) from error.__cause__
    return choose_model(transport.address, [transport.model_config(name, CONTROL_TIMEOUT_S) for name in ready], model, variant)


def with_variant(error: ServerUnavailableError, variant: str | None) -> ServerUnavailableError:
    """The error, told to a caller who gave a word without a port, which may have been meant as a host."""
    if variant is not None:
        error.args = (f"{error}; '{variant}' was taken for a variant's name: for the host of that name write '{variant}:8001'",)
    return error


def _retrying(attempt: Callable[[float | None], _Result], retry: Retry) -> _Result:
    while True:
        try:
            return attempt(retry.remaining_s())
        except FaceCLIPError as error:
            time.sleep(retry.delay_s(error))


def _last(events: Generator[_Result, None, None]) -> _Result | None:
    last = None
    with closing(events):  # an error in the callback, or Ctrl-C, must cancel the request
        for event in events:
            last = event
    return last
