"""A model that a server offers, as callers of the gateway are told of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from faceclip import ModelConfig, ServedModel
from faceclip.served import describe


@dataclass(frozen=True)
class Offer:
    served: ServedModel
    meanings: Mapping[str, str]
    """Parameter -> what it does."""
    stream: ModelConfig | None
    faces: ModelConfig | None
    """The model that looks at photographs, where there is one."""
    verify: bool
    rules: Mapping[str, Any] = field(default_factory=dict)
    """Marks, checks, consent, audit and licence, as far as the server tells."""

    @property
    def consent_required(self) -> bool:
        consent = self.rules.get("consent")
        return "require" in (consent if isinstance(consent, str) else json.dumps(consent or ""))

    def as_json(self) -> dict[str, Any]:
        served = self.served
        parameters = {
            name: {
                **({"default": served.defaults[name]} if name in served.defaults else {}),
                **served.limits.get(name, {}),
                "doc": self.meanings.get(name, ""),
            }
            for name in served.inputs
        }
        return {
            "id": served.model,
            "variant": served.variant,
            "placement": served.placement,
            "emulated": dict(served.emulated),
            "parameters": parameters,
            "stream": self.stream is not None,
            "rules": dict(self.rules),
        }


def meanings(config: ModelConfig) -> dict[str, str]:
    told = json.loads(config.parameters["interface"]).get("parameters", {})
    return {name: str(each.get("doc", "")) for name, each in told.items()}


def offer(config: ModelConfig, beside: Mapping[str, ModelConfig], rules: Mapping[str, Any]) -> Offer:
    """`beside`: all ready models of the server by name. Raises `ProtocolError`."""
    served = describe(config)
    return Offer(
        served,
        meanings(config),
        beside.get(f"{served.model}_stream"),
        beside.get(f"{served.model}_faces"),
        f"{served.model}_verify" in beside,
        rules,
    )
