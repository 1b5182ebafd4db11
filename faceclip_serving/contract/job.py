"""A job: one validated request on its way through the models, as JSON between processes.

`prepare` makes it, the sampler adds what it measured, `finish` turns it into the public `details`. Times are seconds of the
host's monotonic clock, which all processes of one server share.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .parameters import GenerationRequest
from .tensors import Array, bytes_tensor

Rows = Mapping[str, list[int]]
"""Role (a branch of guidance, or its `PREFIXED_TEXT`) -> places in `Job.encodings`."""


@dataclass(frozen=True)
class Encoding:
    """How the conditioning of one text is put together from rows of the text encoder's output."""

    rows: list[int]
    """One for each chunk of the text."""
    weights: list[float] = field(default_factory=list)
    """The different weights of its words, but 1."""
    without: list[list[int]] = field(default_factory=list)
    """For each weight the rows without the words that have it, one for each chunk; a chunk that has none of them: its own row."""


@dataclass
class Job:
    request: GenerationRequest
    rows: Rows
    """Which encodings play which role."""
    face_weights: list[float]
    """Weight of each reference face, summing to 1 for each person; empty without a face."""
    place: str
    """In the sampler."""
    deadline: float | None
    """Monotonic seconds after which nobody waits for it any more."""
    digest: str
    """Digest of the shared code that made the job; models built from other code refuse it."""
    id: str = ""
    """The request's, for logs, traces and details."""
    people: list[list[int]] = field(default_factory=list)
    """Of several people in one picture: the faces of each, by their numbers. Empty: all faces are one person's."""
    encodings: list[Encoding] = field(default_factory=list)
    """Of all texts; empty: each is the row of its number, without weights."""
    faces: list[dict[str, Any]] = field(default_factory=list)
    consent: dict[str, Any] = field(default_factory=dict)
    """What is told of the person's consent."""
    prompt_tokens: dict[str, int] = field(default_factory=dict)
    """Prompt -> its tokens that are used."""
    prompt_chunks: dict[str, int] = field(default_factory=dict)
    """Prompt -> the chunks they are in."""
    checks: list[dict[str, Any]] = field(default_factory=list)
    """Decisions of the policy's checks, for the operator's records; never in the answer."""
    warnings: list[str] = field(default_factory=list)
    clock: dict[str, float] = field(default_factory=dict)
    """Event -> monotonic seconds."""
    audit: dict[str, Any] = field(default_factory=dict)
    """What the operator's audit log is told of it, and the caller is not: scores, names of photographs. Never what they show."""
    edit: dict[str, Any] = field(default_factory=dict)
    """Of a picture that came: its size, which part of it is drawn, and the face there. Empty: none came."""
    face_detail: dict[str, Any] = field(default_factory=dict)
    """Of faces that are drawn again: how, and those of each picture. Empty: they were not to be."""
    sampling: dict[str, Any] = field(default_factory=dict)
    """What the sampler reports: steps run, denoiser rows, seconds."""
    begin: int | None = None
    """The first step of a run that starts from a picture; None: it starts from noise."""

    def for_audit(self, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """All that the audit log is told of it. `more`: what a refusal tells besides, further `checks` among it."""
        told = dict(more or {})
        checks = [*self.checks, *told.pop("checks", [])]
        return {"consent": self.consent, **self.audit, "checks": checks, **told}

    def stamp(self, event: str) -> None:
        """Notes the time of an event."""
        self.clock[event] = time.monotonic()

    def encode(self) -> Array:
        """The job as a BYTES tensor, object [1]."""
        return bytes_tensor([json.dumps(vars(self), default=vars).encode()])

    @classmethod
    def decode(cls, tensor: Array, digest: str) -> Job:
        """The job of a BYTES tensor. Raises `RuntimeError` if it was made by other code than `digest`."""
        document = json.loads(tensor.item())
        if document["digest"] != digest:
            raise RuntimeError(
                "the models of this repository were assembled from different versions of the code"
                f" (job {document['digest'][:12]}, this model {digest[:12]}): assemble the repository again"
            )
        request, encodings = document["request"], document["encodings"]
        read = {"request": GenerationRequest(**request), "encodings": [Encoding(**each) for each in encodings]}
        return cls(**{**document, **read})
