"""What lies in an assembled repository, read before a server is started over it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.names import SAMPLER, model_name
from faceclip_serving.contract.placements import Placement, placement_of
from faceclip_serving.contract.variants.table import VARIANTS

CONFIG = "config.pbtxt"


class RepositoryError(UserError):
    """A folder that no server can be started over."""


def interfaces(repository: Path) -> dict[str, Mapping[str, Any]]:
    """Deployment -> the interface of its public model. Raises `RepositoryError`."""
    return {name: json.loads(told["interface"]) for name, told in _public(repository).items()}


def placements_of(repository: Path) -> dict[str, Placement]:
    """Deployment -> its placement. Raises `RepositoryError`."""
    return {name: placement_of(VARIANTS[told["variant"]], told["placement"]) for name, told in _public(repository).items()}


def check_commercial(repository: Path) -> None:
    """Raises `RepositoryError` where the weights of a deployment may not be used commercially."""
    for name, told in _public(repository).items():
        variant = VARIANTS[told["variant"]]
        if not variant.licence.commercial:
            raise RepositoryError(
                f"commercial: the weights of '{variant.name}' (deployment '{name}') are for non-commercial use ({variant.licence.text});"
                " serve a variant whose licence allows it, such as nano, or leave --commercial out where use is not commercial"
            )


def sampler_parameters(repository: Path) -> dict[str, Mapping[str, str]]:
    """Deployment -> the parameters in its sampler's config.pbtxt. Raises `RepositoryError`."""
    found = {name: repository / model_name(SAMPLER, name) / CONFIG for name in _public(repository)}
    return {name: _parameters(_config(path)) for name, path in found.items() if path.exists()}


def python_instances(repository: Path) -> int:
    """Instances of models that Triton's Python backend runs. Raises `RepositoryError`."""
    configs = [_config(path) for path in repository.glob(f"*/{CONFIG}")]
    return sum(sum(group.count for group in each.instance_group) for each in configs if each.backend == "python")


def _config(path: Path) -> model_config_pb2.ModelConfig:
    try:
        return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise RepositoryError(f"repository: {path} cannot be read ({error}); assemble the repository again") from None


def _parameters(config: model_config_pb2.ModelConfig) -> dict[str, str]:
    return {key: value.string_value for key, value in config.parameters.items()}


def _public(repository: Path) -> dict[str, Mapping[str, str]]:
    """Deployment -> the parameters of its public model. Raises `RepositoryError` where Triton would serve nothing of ours, or refuse
    everything because of one stray folder."""
    if not repository.exists():
        raise RepositoryError(f"repository: {repository} does not exist; make it with `make repository`")
    if not repository.is_dir():
        raise RepositoryError(f"repository: {repository} is not a folder; expected one that `make repository` made")
    folders = sorted(path for path in repository.iterdir() if path.is_dir())
    models = [path for path in folders if os.access(path / CONFIG, os.R_OK)]
    if not models:
        raise RepositoryError(f"repository: {repository} holds no models; make it with `make repository`")
    strays = [path.name for path in folders if path not in models]
    if strays:
        raise RepositoryError(
            f"repository: {repository} holds '{strays[0]}', which is no model (no {CONFIG} that can be read), and Triton would"
            " refuse to start: move it away, or serve a folder within"
        )
    found: dict[str, Mapping[str, str]] = {}
    for path in models:
        config = _config(path / CONFIG)
        if "interface" in config.parameters:
            found[config.name] = _parameters(config)
    if not found:
        names = ", ".join(path.name for path in models)
        raise RepositoryError(f"repository: {repository} holds no FaceCLIP model, only {names}; make it with `make repository`")
    return found
