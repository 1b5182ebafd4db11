"""Variant and placement -> a Triton model repository.

`render` writes every config.pbtxt through Triton's own protobuf from the signatures; the result for the default variant and
placement is committed in `model_repository/`, so that it can be read as it stands. `assemble` makes a repository that a server
can load: configs, the Python models, a copy of the shared code (each model folder may be fetched alone, from object storage),
tokenizers, the face detector and the components' artifacts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

import faceclip_serving
from faceclip_serving.contract import signatures
from faceclip_serving.contract.digest import DIGEST_FILE, package_digest
from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.placements import CPU, ORT_CPU, PLAN_FILE, Placement, placement_of
from faceclip_serving.contract.sdxl import TINY_SDXL
from faceclip_serving.contract.signatures import (
    COMPONENTS,
    ENCODERS,
    ENSEMBLE,
    PREPARE,
    STREAM,
    VAE_DECODER,
    VAE_TILE,
    ensemble_steps,
    model_name,
    models,
    vae_tile,
)
from faceclip_serving.contract.tensors import Array, Tensor
from faceclip_serving.contract.variant import Variant
from faceclip_serving.contract.variants import VARIANTS
from faceclip_serving.face.detectors import DETECTOR_FILE
from faceclip_serving.sampling.previews import PREVIEW_FILE, fit

from ..checkpoint.committed import own_folder
from ..checkpoint.parts import PARTS
from ..checkpoint.tokenizers import tokenizer_folders, write_tokenizers
from ..commandline import add_checkpoint, add_components, add_placement, add_variant
from ..engine.record import check_plan
from ..paths import CHECKPOINT, MODEL_REPOSITORY, onnx_folder, repository_folder
from .deployments import check_name, install, is_current

PACKAGE = Path(faceclip_serving.__file__).resolve().parent
DEFAULT_VARIANT = TINY_SDXL
DEFAULT_PLACEMENT = CPU
HEADER = "# Rendered by `python -m export repository --render`: change the signatures, not this file.\n"


class RepositoryError(UserError):
    """A repository cannot be assembled; the message says what is missing and how to make it."""


def interface(variant: Variant) -> str:
    """What clients want to know of a variant, as JSON: defaults, limits and the names that parameters may take."""
    document = {"defaults": asdict(variant.defaults), "limits": asdict(variant.limits), "schedulers": variant.schedulers}
    return json.dumps(document, sort_keys=True)


def component_models(placement: Placement) -> dict[str, str]:
    """Model that holds a component's artifact -> the component. They share their names, but for a decoder behind tiles."""
    decoder = VAE_TILE if placement.vae_tile else VAE_DECODER
    return {decoder if name == VAE_DECODER else name: name for name in COMPONENTS}


def model_source(name: str, placement: Placement) -> Path:
    """The code of a Python model. A component's model has the component's, whatever its name."""
    if name == VAE_DECODER and placement.vae_tile:
        return MODEL_REPOSITORY / VAE_DECODER / "1" / "tiled.py"
    return MODEL_REPOSITORY / component_models(placement).get(name, name) / "1" / "model.py"


def render(variant: Variant, placement: Placement, deployment: str = ENSEMBLE) -> dict[str, str]:
    """Role -> text of the config.pbtxt of that model in `deployment`."""
    variant = placement.narrowed(variant)
    configs = {}
    holders = component_models(placement)
    served = {**models(variant), **({VAE_TILE: vae_tile(variant)} if VAE_TILE in holders else {})}
    for name, signature in served.items():
        config = pb.ModelConfig(
            name=model_name(name, deployment),
            max_batch_size=0,  # batch axes are declared like all others: `rows` and `faces` of one call differ
            input=[_input(tensor) for tensor in signature.inputs],
            output=[pb.ModelOutput(name=t.name, data_type=t.dtype.config, dims=t.dims) for t in signature.outputs],
        )
        _parameter(config, "variant", variant.name)
        if name == ENSEMBLE:
            config.platform = "ensemble"
            _parameter(config, "interface", interface(variant))
            for step in ensemble_steps(variant):
                config.ensemble_scheduling.step.add(
                    model_name=model_name(step.model, deployment),
                    model_version=-1,
                    input_map=step.inputs,
                    output_map=step.outputs,
                )
        elif name in holders:
            runtime = placement.components[holders[name]].runtime
            config.backend, config.platform = runtime.backend, runtime.platform
            config.default_model_filename = runtime.artifact if runtime.backend != "python" else ""
            config.instance_group.add(count=1, kind=runtime.instance_kind)
        else:
            config.backend = "python"
            config.instance_group.add(count=1, kind="KIND_CPU")
            if name == STREAM:
                config.model_transaction_policy.decoupled = True
        if config.backend == "python":
            _parameter(config, "placement", placement.name)
            _parameter(config, "role", holders.get(name, name))
            if placement.vae_tile and name in (VAE_DECODER, VAE_TILE):
                _parameter(config, "vae_tile", str(placement.vae_tile))
            _parameter(config, "deployment", deployment)
            if name in ENCODERS:
                _parameter(config, "encoding_cache_bytes", str(placement.encoding_cache_bytes))
        configs[name] = HEADER + text_format.MessageToString(config)
    return configs


def _input(tensor: Tensor) -> pb.ModelInput:
    return pb.ModelInput(name=tensor.name, data_type=tensor.dtype.config, dims=tensor.dims, optional=tensor.optional)


def _parameter(config: pb.ModelConfig, key: str, value: str) -> None:
    config.parameters[key].string_value = value


def assemble(
    variant: Variant,
    placement: Placement,
    components: Path,
    destination: Path,
    checkpoint: Path | None = None,
    deployment: str = ENSEMBLE,
) -> Path:
    """Writes the models of `variant` on `placement` to the repository `destination`, unless the very same are there already.

    A repository may hold several deployments: models of others are left as they are. `components` holds
    `<precision>/<component>/` as `export onnx` and `export engine` write them. `checkpoint` holds the
    tokenizers of variants that do not bring their own, and the face detector. Large files are hard-linked where possible.
    Raises `RepositoryError`, and `DeploymentError` where the name cannot be had.
    """
    check_name(deployment)
    configs = render(variant, placement, deployment)
    identity = _identity(variant, configs, components, placement, checkpoint)
    if is_current(destination, deployment, identity):
        return destination  # left alone: a server may be running from it
    scratch = destination.with_name(f"{destination.name}.{os.getpid()}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    for name, text in configs.items():
        model = scratch / model_name(name, deployment)
        version = model / "1"
        version.mkdir(parents=True)
        (model / "config.pbtxt").write_text(text)
        if 'backend: "python"' in text:
            shutil.copy(model_source(name, placement), version / "model.py")
            shutil.copytree(PACKAGE, version / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
            (version / DIGEST_FILE).write_text(package_digest(PACKAGE) + "\n")
        if name == STREAM:
            np.save(version / PREVIEW_FILE, _preview_factors(variant, components, placement))
        if name in component_models(placement):
            _link_artifact(components, component_models(placement)[name], placement, version)
    prepare = scratch / model_name(PREPARE, deployment) / "1"
    write_tokenizers(variant, checkpoint, prepare)
    detector = _detector(checkpoint)
    if detector is not None:
        _link(detector, prepare / DETECTOR_FILE)
    install(scratch, destination, deployment, identity)
    return destination


def _identity(
    variant: Variant, configs: dict[str, str], components: Path, placement: Placement, checkpoint: Path | None
) -> str:
    """Digest of all that an assembled repository follows from; artifacts by size and time."""
    digest = hashlib.sha256(package_digest(PACKAGE).encode())
    for name, text in configs.items():
        digest.update(text.encode())
        model = model_source(name, placement)
        digest.update(model.read_bytes() if model.exists() else b"")
    folders = [components / placement.components[name].precision / name for name in COMPONENTS]
    folders += tokenizer_folders(variant, checkpoint)
    files = [path for folder in folders for path in sorted(folder.glob("*"))]
    files += sorted(checkpoint.rglob("*.json")) if checkpoint else []
    detector = _detector(checkpoint)
    files += [detector] if detector else []
    for path in files:
        if path.exists():
            digest.update(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    return digest.hexdigest()


def _detector(checkpoint: Path | None) -> Path | None:
    """The downloaded face detector, under the name that the table of parts gives it."""
    if checkpoint is None:
        return None
    [names] = PARTS["yunet"].files
    return next((checkpoint / name for name in names if (checkpoint / name).exists()), None)


def _preview_factors(variant: Variant, components: Path, placement: Placement) -> Array:
    """Fitted to the ONNX decoder, whatever runtime the placement gives it."""
    from faceclip_serving.models.onnx_component import OnnxComponent  # here, since ONNX Runtime takes a second to import

    execution = placement.components[VAE_DECODER]
    path = components / execution.precision / VAE_DECODER / ORT_CPU.artifact
    if not path.exists():
        raise RepositoryError(f"{VAE_DECODER}: expected {path}; make it with `python -m export onnx`")
    decoder = OnnxComponent(path, signatures.components(variant)[VAE_DECODER], ORT_CPU.providers, {})
    return fit(lambda latents: decoder.run({"latents": latents})["image"], variant.latent_channels, variant.latent_scale)


def _link_artifact(components: Path, name: str, placement: Placement, version: Path) -> None:
    execution = placement.components[name]
    source = components / execution.precision / name
    if not (source / execution.runtime.artifact).exists():
        command = "engine" if execution.runtime.artifact == PLAN_FILE else "onnx"
        raise RepositoryError(
            f"{name}: expected {source / execution.runtime.artifact}; make it with"
            f" `python -m export {command} --precision {execution.precision}`"
        )
    if execution.runtime.artifact == PLAN_FILE:
        check_plan(source, for_triton=True)
    for path in source.glob(execution.runtime.artifact + "*"):
        _link(path, version / path.name)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    add_placement(parser)
    add_components(parser, "folder of exported components")
    add_checkpoint(parser, "folder of tokenizers and detector (default: the variant's own)")
    parser.add_argument("--output", type=Path, help="where to write (default: build/<variant>-<placement>)")
    parser.add_argument(
        "--name",
        default=ENSEMBLE,
        help="under which the server offers the variant (default: %(default)s); a further name in the same --output puts a"
        " further variant beside it, and its models are called after it: flux, flux_stream, flux_sampler, ...",
    )
    parser.add_argument(
        "--render", action="store_true", help="only rewrite model_repository/*/config.pbtxt, for the default variant"
    )


def run(args: argparse.Namespace) -> int:
    if args.render:
        for name, text in render(DEFAULT_VARIANT, DEFAULT_PLACEMENT).items():
            (MODEL_REPOSITORY / name / "config.pbtxt").write_text(text)
        return 0
    variant = VARIANTS[args.variant]
    placement = placement_of(variant, args.placement)
    components = args.components or onnx_folder(variant)
    destination = args.output or repository_folder(variant, placement)
    checkpoint = args.checkpoint or own_folder(variant) or CHECKPOINT
    assemble(variant, placement, components, destination, checkpoint, args.name)
    print(f"assembled {destination}", file=sys.stderr)
    print(json.dumps({"repository": str(destination), "name": args.name, "variant": variant.name, "placement": placement.name}))
    return 0
