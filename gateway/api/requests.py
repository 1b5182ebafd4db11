"""A request for pictures as callers write it: OpenAI's fields, ours beside them; and the `Drawing` that it becomes.

Generations, edits and jobs share it. What only a server knows (ranges of its variant, whether there is a face) is checked there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PrivateAttr

from ..drawing import Drawing
from ..errors import invalid
from .fields import checked
from .masks import white_where_transparent
from .parameters import ParameterFields

NAMED_MASKS = ("none", "face", "head")
"""Masks that the server finds by itself."""
MOST_FILES = 16
"""Of one field; the server's own limits are lower."""
_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
_OF_OPENAI: Mapping[str, Any] = {"background": "opaque"} | dict.fromkeys(
    ("quality", "style", "moderation", "input_fidelity", "output_compression")
)
"""Fields of OpenAI's that change nothing here, and what is as if nothing had been said: who sets another value is told so."""
_OWN = {
    "prompt", "model", "n", "size", "response_format", "output_format", "user", "stream", "partial_images", "face_images", "identity",
    "people", "people_masks", "image", "mask", "webhook_url", "priority", *_OF_OPENAI,
}  # fmt: skip
"""Fields that are no keywords of the client's call by themselves."""
Base64 = Annotated[str, Field(description="an image file, base64 or a data URL")]


class ImageRequest(ParameterFields):
    """The body of generations, edits and jobs."""

    model_config = ConfigDict(extra="forbid", title="ImageRequest")

    prompt: str = Field(min_length=1, max_length=10_000, description="What the picture shows.")
    model: str | None = Field(
        None, max_length=200, description="Name of a model or of its variant, see /v1/models; left out: the default one."
    )
    n: Annotated[
        int | None, Field(ge=1, le=10, description="Pictures of the request (1 to 10, the model may allow fewer; default: 1).")
    ] = None
    size: str | None = Field(None, description="WIDTHxHEIGHT in pixels, or auto: the model's default.")
    response_format: Literal["b64_json", "url"] | None = Field(
        None, description="The picture in the answer, or a link that expires."
    )
    output_format: Literal["png", "jpeg", "webp"] | None = Field(
        None, description="File format of the pictures (default: png)."
    )
    user: str | None = Field(None, max_length=200, description="Whom the request is for; only its digest goes on.")
    stream: bool | None = Field(None, description="Answer with events, as the picture grows.")
    partial_images: Annotated[int | None, Field(ge=0, le=3, description="Rough pictures on the way, of stream (0 to 3).")] = (
        None
    )
    face_images: list[Base64] | None = Field(
        None, max_length=MOST_FILES, description="Photographs of the person, or of people."
    )
    identity: list[Base64] | Base64 | None = Field(None, description="Sealed identities in the place of photographs, base64.")
    people: list[dict[str, Any]] | str | None = Field(None, description="Several people in one picture, see docs/together.md.")
    people_masks: list[Base64] | None = Field(None, max_length=MOST_FILES, description="Masks of people without a box.")
    image: Base64 | None = Field(None, description="A picture to change.")
    mask: str | None = Field(
        None, description="Where it is drawn anew: an image file, white there; or face, head: found in the picture."
    )
    prompt_language: Literal["auto", "en", "off"] | None = Field(
        None, description="auto: a prompt in Chinese is put into English."
    )
    webhook_url: str | None = Field(None, max_length=2000, description="Of jobs: where the end is told.")
    quality: str | None = Field(None, description="Without effect here.")
    style: str | None = Field(None, description="Without effect here.")
    moderation: str | None = Field(None, description="Without effect here: the server's policy decides.")
    input_fidelity: str | None = Field(None, description="Without effect here: see id_guidance_scale.")
    background: str | None = Field(None, description="auto or opaque; pictures are never transparent.")
    output_compression: Annotated[
        int | None, Field(ge=0, le=100, description="Without effect here: pictures are signed as they are.")
    ] = None

    _files: dict[str, list[bytes]] = PrivateAttr(default_factory=dict)
    """Files of a form, by the names of this body's fields."""

    @property
    def has_pictures(self) -> bool:
        """Photographs, an identity, or a picture to change."""
        told = (self.face_images, self.identity, self.image)
        return any(each is not None for each in told) or bool(self._files.keys() & {"face_images", "identity", "image"})

    def to_drawing(
        self, request_id: str, tenant: str, priority: str, timeout_s: float, unread: Mapping[str, Any] = MappingProxyType({})
    ) -> Drawing:
        """Raises `ApiError` (400). `tenant`, `priority`: of the caller, who may choose `batch` for himself.

        `unread`: fields that the route does not read, each with the value that it acts by. Of another value there is a warning, as of
        OpenAI's fields that nobody reads.
        """
        if not self.prompt.strip():
            raise invalid("prompt", "expected a text, got nothing; describe the scene, e.g. 'portrait, studio light'")
        if self.background == "transparent":
            raise invalid("background", "expected auto or opaque, got 'transparent'; pictures have no transparent parts")
        named = self.mask is not None and self.mask.lower() in NAMED_MASKS
        people = json.dumps(self.people) if isinstance(self.people, list) else self.people
        names = type(self).model_fields.keys() - _OWN
        chosen = {name: getattr(self, name) for name in names} | self._size()
        chosen |= {
            "num_images_per_prompt": self.n,
            "output_format": self.output_format and self.output_format.upper(),
            "mask": self.mask.lower() if named and self.mask else None,
            "people": people,
        }
        previews = bool(self.partial_images) and "partial_images" not in unread
        silent = {**_OF_OPENAI, **unread}
        ignored = sorted(name for name in silent if getattr(self, name) not in (None, "auto", silent[name]))
        mask = next(iter(self._content("mask", None if named else self.mask)), None)
        return Drawing(
            model=self.model,
            prompt=self.prompt,
            photos=self._content("face_images", self.face_images),
            image=next(iter(self._content("image", self.image)), None),
            mask=None if mask is None else white_where_transparent(mask),
            parameters={name: value for name, value in chosen.items() if value is not None}
            | ({"preview": True} if previews else {}),
            request_id=request_id,
            tenant=tenant_of(tenant, self.user),
            priority="batch" if self.priority == "batch" else priority,
            timeout_s=timeout_s,
            previews=previews,
            identities=self._content("identity", self.identity),
            people_masks=self._content("people_masks", self.people_masks),
            warnings=[f"{name}: has no effect here" for name in ignored],
        )

    def _content(self, name: str, told: list[str] | str | None) -> list[bytes]:
        """The files of a field, from a form or from the body's texts."""
        texts = [told] if isinstance(told, str) else told
        if texts is not None and not texts:
            raise invalid(name, "expected at least one file, got an empty list; leave it out")
        return self._files.get(name, []) + [decoded(name, text) for text in texts or ()]

    def _size(self) -> dict[str, int]:
        if self.size is None or self.size == "auto":
            return {}
        if self.width is not None or self.height is not None:
            raise invalid("size", "give it, or width and height, not both")
        sides = _SIZE.fullmatch(self.size)
        if sides is None:
            raise invalid("size", f"expected WIDTHxHEIGHT in pixels, such as 1024x1024, or auto, got {self.size[:80]!r}")
        return {"width": int(sides[1]), "height": int(sides[2])}


def image_request_of(body: Any, *, strict: bool, files: Mapping[str, list[bytes]] | None = None) -> ImageRequest:
    """The request that a body says. `files`: of a form. Raises `ApiError` (400)."""
    asked = checked(ImageRequest, body, strict=strict)
    asked._files = dict(files or {})
    return asked


def decoded(name: str, text: str) -> bytes:
    """The file of base64, in lines or in one, or of a data URL."""
    payload = text
    if text.startswith("data:"):
        head, comma, payload = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise invalid(name, "expected a data URL with ;base64, got another; write data:image/png;base64,…")
    elif text.startswith(("http://", "https://")):
        raise invalid(name, "expected base64 of a file, got a URL; nothing is fetched from elsewhere: send the file")
    try:
        content = base64.b64decode(payload.encode("ascii").translate(None, b" \t\r\n"), validate=True)
    except (binascii.Error, ValueError):
        raise invalid(name, f"expected base64 of a file, got {text[:40]!r}") from None
    if not content:
        raise invalid(name, "expected a file, got an empty one")
    return content


def tenant_of(tenant: str, user: str | None) -> str:
    """The server's word for whom a request is for: of a user the digest alone, since names may be personal."""
    return f"{tenant[:47]}/{hashlib.sha256(user.encode()).hexdigest()[:16]}" if user else tenant[:64]
