"""What is to be drawn, after validation: the one thing that routes, jobs and backends hand to one another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Drawing:
    """One request for pictures. Files are as the caller sent them."""

    model: str | None
    """Name of a served model, or of its variant; None: the servers' default."""
    prompt: str
    photos: list[bytes] = field(repr=False)
    """Photographs of the person, or of people."""
    image: bytes | None = field(repr=False)
    """A picture to change."""
    mask: bytes | None = field(repr=False)
    """Where it is drawn anew."""
    parameters: dict[str, Any]
    """Further keywords of the client's `GenerateOptions`; plain values, as JSON has them."""
    request_id: str
    tenant: str
    priority: str
    """`interactive` or `batch`."""
    timeout_s: float
    previews: bool
    """Whether `Progress` brings rough pictures."""
    steps: bool = True
    """Whether there is a `Progress` for each step; without, a drawing is one answer, and costs less."""
    identities: list[bytes] = field(default_factory=list, repr=False)
    """Sealed identities in the place of photographs."""
    people_masks: list[bytes] = field(default_factory=list, repr=False)
    warnings: list[str] = field(default_factory=list)
    """What of the request has no effect: told beside the server's."""

    @property
    def pictures(self) -> int:
        """How many it brings."""
        return int(self.parameters.get("num_images_per_prompt") or 1)

    def options(self) -> dict[str, Any]:
        """The keywords of `AsyncFaceCLIPPipeline.stream` beside the prompt; those of nobody's choice are left out."""
        files: dict[str, Any] = {
            "face_images": self.photos,
            "image": self.image,
            "mask_image": self.mask,
            "identity": self.identities,
            "people_masks": self.people_masks,
        }
        chosen = {name: value for name, value in {**self.parameters, **files}.items() if value is not None and value != []}
        about = {"tenant": self.tenant} if self.tenant else {}
        return {
            **chosen,
            **about,
            "priority": self.priority,
            "request_id": self.request_id,
            "timeout_s": self.timeout_s,
            "output_type": "bytes",
        }
