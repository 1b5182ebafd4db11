"""What a server says about the models it offers to clients, and which of them a caller means.

A model is offered if its configuration carries the parameters `variant` (a name) and `interface` (a JSON document: per parameter of
a request its default, range and meaning). Its streaming twin, if any, is named `<model>_stream`. No variant's name is known here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import InvalidRequestError, ModelNotFoundError, ProtocolError
from .transport import ModelConfig

DEFAULT_MODEL = "faceclip"
STREAM_SUFFIX = "_stream"
CANCEL_SUFFIX = "_cancel"
VERIFY_SUFFIX = "_verify"
FACES_SUFFIX = "_faces"
_RANGES = ("min", "max", "multiple", "choices", "max_characters", "max_items", "entries")
CONTROL_TIMEOUT_S = 10.0
"""Limit of each question about the server, which computes nothing, in seconds."""


@dataclass(frozen=True)
class ServedModel:
    """A model that takes requests, as its server describes it."""

    model: str
    variant: str
    inputs: Mapping[str, str] = field(repr=False)
    """Parameter name -> datatype: what a request may carry."""
    defaults: Mapping[str, Any]
    """Parameter name -> what the server uses where a request says nothing."""
    limits: Mapping[str, Mapping[str, Any]]
    """Parameter name -> what it may be: `min`, `max`, `multiple`, `choices`, `max_characters`, `max_items`, `entries`."""
    schedulers: Sequence[str]
    placement: str = ""
    """What the server runs its networks on, e.g. `8gb`."""
    emulated: Mapping[str, str] = field(default_factory=dict)
    """Component -> what runs in the place of what, where the placement is tried without its card; then times and memory say nothing."""


def is_offered(config: ModelConfig) -> bool:
    """Whether clients may call this model by itself."""
    return "interface" in config.parameters and not config.name.endswith(STREAM_SUFFIX)


def describe(config: ModelConfig) -> ServedModel:
    """Reads the `interface` document of an offered model."""
    what = f"model '{config.name}', parameter 'interface'"
    text = config.parameters.get("interface")
    if text is None:
        raise InvalidRequestError(f"{what}: missing: not a model for clients; leave model= out to use '{DEFAULT_MODEL}'")
    try:
        told = dict(json.loads(text).get("parameters", {}))
        defaults = {name: each["default"] for name, each in told.items() if "default" in each}
        limits = {name: {key: each[key] for key in each if key in _RANGES} for name, each in told.items()}
        schedulers = list(told.get("scheduler", {}).get("choices", []))
        emulated = dict(json.loads(config.parameters.get("emulated", "{}")))
    except (ValueError, TypeError, AttributeError) as error:
        raise ProtocolError(f"{what}: expected a JSON object of parameters, got {text[:80]!r}") from error
    variant, placement = (config.parameters.get(name, "") for name in ("variant", "placement"))
    return ServedModel(config.name, variant, config.inputs, defaults, limits, schedulers, placement, emulated)


def choose_model(address: str, configs: Sequence[ModelConfig], model: str | None, variant: str | None) -> ServedModel:
    """The offered model called `model` or serving `variant`; if neither is given, the only one. `configs`: all ready models."""
    offered = [config for config in configs if is_offered(config)]
    found = [
        config for config in offered if model in (None, config.name) and variant in (None, config.parameters.get("variant"))
    ]
    if len(found) == 1:
        return describe(found[0])
    has = ", ".join(f"'{config.name}' (variant {config.parameters.get('variant')})" for config in offered) or "no ready model"
    wanted = " and ".join(f"{what} '{name}'" for what, name in (("model", model), ("variant", variant)) if name is not None)
    if found:
        raise InvalidRequestError(f"{address} offers several models for {wanted or 'clients'}: {has}; choose one by model=")
    host = "" if variant is None else f"; if '{variant}' is a host, write '{variant}:8001'"
    raise ModelNotFoundError(f"{address} has no {wanted or 'FaceCLIP model'}; it offers {has}{host}")
