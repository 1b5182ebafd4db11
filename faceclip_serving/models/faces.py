"""What the public model of photographs does: it says which faces they show, and seals identities. Nothing is drawn."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..audit.identities import Identities, Identity
from ..contract import operations
from ..contract.errors import InvalidRequest
from ..contract.job import Job
from ..contract.models import CONTROL, FACE_CROPS, PURPOSE, SEALED, SUBJECT, Purpose
from ..contract.names import PREPARE, SAMPLER
from ..contract.operations import Describe, Prepared
from ..contract.parameters import EXPIRES, MAKE_IDENTITY
from ..contract.request import read_parameter, to_wire
from ..contract.tensors import Array, bytes_tensor, json_tensor
from ..contract.variants.variant import Variant
from ..face.familiarity import FEATURE, FaceStatistics
from ..face.references import averaged, names_of, odd_ones_out
from .audit import FOR_AUDIT
from .streaming import Arrays, Call, Flow


@dataclass(frozen=True)
class Looking:
    """Flows of the model."""

    variant: Variant
    digest: str
    identities: Identities | None
    """None where none are made."""
    known_faces: FaceStatistics | None = None
    """By which the unfamiliar are known; None: of none it is told."""

    def __call__(self, call: Call, arrays: Arrays, place: str) -> Flow:
        """The faces of photographs, or an identity of the chosen ones. Raises `InvalidRequest`, and what the models raise."""
        yield from ()
        wanted, expires = (read_parameter(each, self.variant, arrays) for each in (MAKE_IDENTITY, EXPIRES))
        if not wanted:
            job, _ = self._prepared(call, arrays, Purpose.LIST)
            call(SAMPLER, {CONTROL.name: operations.encode(Prepared(place))})
            return {"details": json_tensor(details(job))}
        if self.identities is None:
            raise InvalidRequest("make_identity: this server makes none (identities=off); send photographs with each request")
        now = datetime.now(UTC)
        if expires is not None and datetime.fromisoformat(expires) <= now:
            raise InvalidRequest(f"expires: expected a time to come, got {expires}, now it is {now:%Y-%m-%dT%H:%M:%SZ}")
        job, prepared = self._prepared(call, arrays, Purpose.IDENTITY)
        asked = operations.encode(Describe(place, job.request.priority, job.request.remember))
        found = call(SAMPLER, {FACE_CROPS.name: prepared[FACE_CROPS.name], CONTROL.name: asked})
        names = [tensor.name for tensor in self.variant.face_features]
        features = {name: found[name] for name in names}
        job.warnings += odd_ones_out(features[self.variant.identity.name], range(len(job.face_weights)))
        if self.known_faces is not None:
            job.warnings += self.known_faces.warnings(features[FEATURE], names_of(job.faces))
        identity = Identity(
            self.variant.name,
            self.identities.weights,
            averaged(features, self.variant.identity.name, job.face_weights),
            now.isoformat(timespec="seconds"),
            expires=expires,
            **json.loads(prepared[SUBJECT.name][0]),
        )
        job.audit["identity"] = identity.id
        sealed = to_wire([self.identities.seal(identity)], job.request.image_encoding)
        return {"details": json_tensor({**details(job), "identity": identity.told()}), SEALED.name: sealed}

    def _prepared(self, call: Call, arrays: Arrays, purpose: Purpose) -> tuple[Job, dict[str, Array]]:
        prepared = call(PREPARE, {**arrays, PURPOSE.name: bytes_tensor([purpose.value.encode()])})
        return Job.decode(prepared["job"], self.digest), prepared


def details(job: Job) -> dict[str, Any]:
    """The public report of a request that draws nothing, with what the audit log is told."""
    prepare_s, total_s = (at - job.clock["received"] for at in (job.clock["prepared"], time.monotonic()))
    return {
        "id": job.id,
        "timings_s": {"prepare": round(prepare_s, 6), "total": round(total_s, 6)},
        "faces": job.faces,
        "consent": job.consent,
        "warnings": job.warnings,
        FOR_AUDIT: job.for_audit(),
    }
