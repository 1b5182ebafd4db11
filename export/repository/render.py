"""Variant and placement -> the config.pbtxt of every model, through Triton's own protobuf, from the signatures.

The result for the default variant and placement is committed in `model_repository/`, so that it can be read as it stands.
"""

from __future__ import annotations

import json
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from faceclip_serving.contract.models import ensemble_steps, models
from faceclip_serving.contract.names import COMPONENTS, DEFAULT_DEPLOYMENT, ENSEMBLE, SAMPLER, STREAM, UNARY, model_name
from faceclip_serving.contract.parameters import interface
from faceclip_serving.contract.placements import CPU, Placement
from faceclip_serving.contract.settings import SETTINGS
from faceclip_serving.contract.tensors import Tensor
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.contract.variants.variant import Variant

from ..paths import MODEL_REPOSITORY

DEFAULT_VARIANT = TINY_SDXL
DEFAULT_PLACEMENT = CPU
HEADER = "# Rendered by `python -m export interface`: change the signatures, not this file.\n"


def model_source(name: str) -> Path:
    """The code of a Python model."""
    return MODEL_REPOSITORY / name / "1" / "model.py"


def render(variant: Variant, placement: Placement, deployment: str = DEFAULT_DEPLOYMENT) -> dict[str, str]:
    """Role -> text of the config.pbtxt of that model in `deployment`."""
    variant = placement.narrowed(variant)
    configs = {}
    for name, signature in models(variant).items():
        if name in COMPONENTS and placement.is_hosted(name):
            continue
        config = pb.ModelConfig(
            name=model_name(name, deployment),
            max_batch_size=0,  # batch axes are declared like all others: `rows` and `faces` of one call differ
            input=[_input(tensor) for tensor in signature.inputs],
            output=[pb.ModelOutput(name=t.name, data_type=t.dtype.config, dims=t.dims) for t in signature.outputs],
        )
        _parameter(config, "variant", variant.name)
        _parameter(config, "placement", placement.name)
        if placement.plans_on:
            _parameter(config, "plans_on", placement.plans_on)
        if name == UNARY:
            _parameter(config, "interface", json.dumps(interface(variant), sort_keys=True))
            if placement.emulated:
                _parameter(config, "emulated", json.dumps(placement.emulated))
        if name == ENSEMBLE:
            config.platform = "ensemble"
            for step in ensemble_steps(variant):
                config.ensemble_scheduling.step.add(
                    model_name=model_name(step.model, deployment),
                    model_version=-1,
                    input_map=step.inputs,
                    output_map=step.outputs,
                )
        elif name in COMPONENTS:
            runtime = placement.components[name].runtime
            config.backend, config.platform = runtime.backend, runtime.platform
            config.default_model_filename = runtime.artifact
            # Without `gpus` Triton makes an instance on every GPU.
            config.instance_group.add(count=1, kind=runtime.instance_kind, gpus=[placement.gpu])
        else:
            config.backend = "python"
            config.instance_group.add(count=1, kind="KIND_CPU")
            if name == STREAM:
                config.model_transaction_policy.decoupled = True
        if config.backend == "python":
            if placement.emulated:
                precisions = {name: execution.precision for name, execution in placement.components.items()}
                _parameter(config, "emulate", json.dumps(precisions))
            if placement.gpu:
                _parameter(config, "gpu", str(placement.gpu))
            _parameter(config, "role", name)
            _parameter(config, "deployment", deployment)
            if name == SAMPLER:
                _parameter(config, "vae_tile", str(placement.vae_tile))
            for setting in (each for each in SETTINGS if name in each.models):
                _parameter(config, setting.name, json.dumps(setting.default(placement)))
        configs[name] = HEADER + text_format.MessageToString(config)
    return configs


def _input(tensor: Tensor) -> pb.ModelInput:
    return pb.ModelInput(name=tensor.name, data_type=tensor.dtype.config, dims=tensor.dims, optional=tensor.optional)


def _parameter(config: pb.ModelConfig, key: str, value: str) -> None:
    config.parameters[key].string_value = value
