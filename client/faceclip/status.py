"""What a server is and offers, in one document. Knows the transport's questions; prints nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .served import CONTROL_TIMEOUT_S, VERIFY_SUFFIX, ServedModel, describe, is_offered
from .transport import ModelState, Transport


@dataclass(frozen=True)
class ServerStatus:
    """One look at a server that answered."""

    address: str
    name: str
    version: str
    ready: bool
    """The server is ready and offers at least one FaceCLIP model."""
    models: list[ModelState]
    """All models of the server, the inner ones too."""
    offered: list[ServedModel]
    """The ready models that take requests from clients."""
    marks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Offered model -> which marks its pictures get, as far as the server tells."""

    checks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Offered model -> the policy of its checks, and which are on."""

    def as_json(self) -> dict[str, Any]:
        return {
            "address": self.address,
            "reachable": True,
            "ready": self.ready,
            "server": {"name": self.name, "version": self.version},
            "models": [{"name": model.name, "ready": model.ready, "reason": model.reason} for model in self.models],
            "offered": [
                {
                    "model": served.model,
                    "variant": served.variant,
                    "placement": served.placement,
                    "emulated": dict(served.emulated),
                    "marks": dict(self.marks.get(served.model, {})),
                    "checks": dict(self.checks.get(served.model, {})),
                    "defaults": dict(served.defaults),
                    "limits": dict(served.limits),
                    "schedulers": list(served.schedulers),
                    "parameters": list(served.inputs),
                }
                for served in self.offered
            ],
        }


def server_status(transport: Transport, timeout_s: float = CONTROL_TIMEOUT_S) -> ServerStatus:
    """Asks a server what it is and serves. `timeout_s`: limit of each question. Raises `FaceCLIPError`."""
    server = transport.server(timeout_s)
    models = transport.models(timeout_s)
    configs = [transport.model_config(model.name, timeout_s) for model in models if model.ready]
    offered = [describe(config) for config in configs if is_offered(config)]
    ready = {config.name for config in configs}
    told = {
        served.model: transport.verify(served.model + VERIFY_SUFFIX, None, timeout_s)
        for served in offered
        if served.model + VERIFY_SUFFIX in ready
    }
    marks, checks = ({model: each.get(what, {}) for model, each in told.items()} for what in ("marks", "checks"))
    return ServerStatus(
        transport.address, server.name, server.version, server.ready and bool(offered), models, offered, marks, checks
    )
