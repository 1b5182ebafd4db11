"""Variant and profile -> a Triton model repository.

`render` writes every config.pbtxt through Triton's own protobuf from the signatures; the result for the default variant and
profile is committed in `model_repository/`, so that it can be read as it stands. `assemble` makes a repository that a server
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
from faceclip_serving import signatures
from faceclip_serving.contract import DIGEST_FILE, package_digest
from faceclip_serving.onnx_component import OnnxComponent
from faceclip_serving.previews import PREVIEW_FILE, fit
from faceclip_serving.profiles import ORT_CPU, PROFILES, Profile
from faceclip_serving.sdxl_variants import TINY_SDXL
from faceclip_serving.signatures import COMPONENTS, ENCODERS, ENSEMBLE, PREPARE, STREAM, VAE_DECODER, ensemble_steps, models
from faceclip_serving.tensors import Array, Tensor
from faceclip_serving.variant import Variant
from faceclip_serving.variants import VARIANTS

from .committed import own_folder
from .engine_record import PLAN, check_plan
from .parts import PARTS
from .tokenizers import tokenizer_folders, write_tokenizers

SOURCE = Path(__file__).resolve().parent.parent / "model_repository"
PACKAGE = Path(faceclip_serving.__file__).resolve().parent
DEFAULT_VARIANT, DEFAULT_PROFILE = TINY_SDXL, PROFILES["cpu"]
IDENTITY = "identity"
"""File at the top of an assembled repository, which Triton ignores."""
DETECTOR = "face_detection_yunet.onnx"
HEADER = "# Rendered by `python -m export repository --render`: change the signatures, not this file.\n"


class RepositoryError(RuntimeError):
    """A repository cannot be assembled; the message says what is missing and how to make it."""


def interface(variant: Variant) -> str:
    """What clients want to know of a variant, as JSON: defaults, limits and the names that parameters may take."""
    document = {"defaults": asdict(variant.defaults), "limits": asdict(variant.limits), "schedulers": variant.schedulers}
    return json.dumps(document, sort_keys=True)


def render(variant: Variant, profile: Profile) -> dict[str, str]:
    """Model name -> text of its config.pbtxt."""
    configs = {}
    for name, signature in models(variant).items():
        config = pb.ModelConfig(
            name=name,
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
                    model_name=step.model, model_version=-1, input_map=step.inputs, output_map=step.outputs
                )
        elif name in COMPONENTS:
            runtime = profile.placements[name].runtime
            config.backend, config.platform = runtime.backend, runtime.platform
            config.default_model_filename = runtime.artifact if runtime.backend != "python" else ""
            config.instance_group.add(count=1, kind=runtime.instance_kind)
        else:
            config.backend = "python"
            config.instance_group.add(count=1, kind="KIND_CPU")
            if name == STREAM:
                config.model_transaction_policy.decoupled = True
        if config.backend == "python":
            _parameter(config, "profile", profile.name)
            _parameter(config, "role", name)
            if name in ENCODERS:
                _parameter(config, "encoding_cache_bytes", str(profile.encoding_cache_bytes))
        configs[name] = HEADER + text_format.MessageToString(config)
    return configs


def _input(tensor: Tensor) -> pb.ModelInput:
    return pb.ModelInput(name=tensor.name, data_type=tensor.dtype.config, dims=tensor.dims, optional=tensor.optional)


def _parameter(config: pb.ModelConfig, key: str, value: str) -> None:
    config.parameters[key].string_value = value


def assemble(
    variant: Variant,
    profile: Profile,
    components: Path,
    destination: Path,
    checkpoint: Path | None = None,
) -> Path:
    """Writes the repository of `variant` on `profile` to `destination`, unless the very same is there already.

    `components` holds `<precision>/<component>/` as `export onnx` and `export engine` write them. `checkpoint` holds the
    tokenizers of variants that do not bring their own, and the face detector. Large files are hard-linked where possible.
    Raises `RepositoryError`.
    """
    configs = render(variant, profile)
    identity = _identity(variant, configs, components, profile, checkpoint)
    if (destination / IDENTITY).exists() and (destination / IDENTITY).read_text() == identity:
        return destination  # left alone: a server may be running from it
    scratch = destination.with_name(f"{destination.name}.{os.getpid()}.partial")
    for name, text in configs.items():
        version = scratch / name / "1"
        version.mkdir(parents=True)
        (scratch / name / "config.pbtxt").write_text(text)
        if 'backend: "python"' in text:
            shutil.copy(SOURCE / name / "1" / "model.py", version)
            shutil.copytree(PACKAGE, version / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
            (version / DIGEST_FILE).write_text(package_digest(PACKAGE) + "\n")
        if name == STREAM:
            np.save(version / PREVIEW_FILE, _preview_factors(variant, components, profile))
        if name in COMPONENTS:
            _link_artifact(components, name, profile, version)
    write_tokenizers(variant, checkpoint, scratch / PREPARE / "1")
    detector = _detector(checkpoint)
    if detector is not None:
        _link(detector, scratch / PREPARE / "1" / DETECTOR)
    (scratch / IDENTITY).write_text(identity)
    shutil.rmtree(destination, ignore_errors=True)
    scratch.replace(destination)
    return destination


def _identity(variant: Variant, configs: dict[str, str], components: Path, profile: Profile, checkpoint: Path | None) -> str:
    """Digest of all that an assembled repository follows from; artifacts by size and time."""
    digest = hashlib.sha256(package_digest(PACKAGE).encode())
    for name, text in configs.items():
        digest.update(text.encode())
        model = SOURCE / name / "1" / "model.py"
        digest.update(model.read_bytes() if model.exists() else b"")
    files = [path for name in COMPONENTS for path in sorted((components / profile.placements[name].precision / name).glob("*"))]
    files += [path for folder in tokenizer_folders(variant, checkpoint) for path in sorted(folder.glob("*"))]
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


def _preview_factors(variant: Variant, components: Path, profile: Profile) -> Array:
    """Fitted to the ONNX decoder, whatever runtime the profile gives it."""
    placement = profile.placements[VAE_DECODER]
    path = components / placement.precision / VAE_DECODER / ORT_CPU.artifact
    if not path.exists():
        raise RepositoryError(f"{VAE_DECODER}: expected {path}; make it with `python -m export onnx`")
    decoder = OnnxComponent(path, signatures.components(variant)[VAE_DECODER], ORT_CPU.providers, {})
    return fit(lambda latents: decoder.run({"latents": latents})["image"], variant.latent_channels, variant.latent_scale)


def _link_artifact(components: Path, name: str, profile: Profile, version: Path) -> None:
    placement = profile.placements[name]
    source = components / placement.precision / name
    if not (source / placement.runtime.artifact).exists():
        command = "engine" if placement.runtime.artifact == PLAN else "onnx"
        raise RepositoryError(
            f"{name}: expected {source / placement.runtime.artifact}; make it with"
            f" `python -m export {command} --precision {placement.precision}`"
        )
    if placement.runtime.artifact == PLAN:
        check_plan(source, for_triton=True)
    for path in source.glob(placement.runtime.artifact + "*"):
        _link(path, version / path.name)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("repository", help="assemble a model repository that Triton can load", description=__doc__)
    parser.add_argument("--variant", choices=sorted(VARIANTS), default=DEFAULT_VARIANT.name)
    parser.add_argument("--profile", choices=sorted(PROFILES), default=DEFAULT_PROFILE.name)
    parser.add_argument("--components", type=Path, help="folder of exported components (default: build/onnx/<variant>)")
    parser.add_argument(
        "--checkpoint", type=Path, help="folder with tokenizers and face detector (default: the variant's own, or checkpoint)"
    )
    parser.add_argument("--output", type=Path, help="where to write (default: build/<variant>-<profile>)")
    parser.add_argument(
        "--render", action="store_true", help="only rewrite model_repository/*/config.pbtxt, for the default variant"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.render:
        for name, text in render(DEFAULT_VARIANT, DEFAULT_PROFILE).items():
            (SOURCE / name / "config.pbtxt").write_text(text)
        return 0
    variant, profile = VARIANTS[args.variant], PROFILES[args.profile]
    components = args.components or Path("build/onnx") / variant.name
    destination = args.output or Path("build") / f"{variant.name}-{profile.name}"
    assemble(variant, profile, components, destination, args.checkpoint or own_folder(variant) or Path("checkpoint"))
    print(f"assembled {destination}", file=sys.stderr)
    print(json.dumps({"repository": str(destination), "variant": variant.name, "profile": profile.name}))
    return 0
