"""A model repository that a server can load: configs, the Python models, a copy of the shared code (each model folder may be fetched
alone, from object storage), tokenizers and the components' artifacts.
"""

from __future__ import annotations

import argparse
import filecmp
import hashlib
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import faceclip_serving
from faceclip_serving.contract.components import components
from faceclip_serving.contract.digest import DIGEST_FILE, WEIGHTS_FILE, package_digest
from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.names import (
    COMPONENTS,
    DEFAULT_DEPLOYMENT,
    ENSEMBLE,
    FACE_ENCODER,
    FACES,
    PREPARE,
    SAMPLER,
    STATISTICS_FILE,
    STREAM,
    VAE_DECODER,
    model_name,
)
from faceclip_serving.contract.placements import (
    CACHE_SUFFIX,
    FUSED_FILE,
    ONNX_WEIGHTS_FILE,
    ORT_CPU,
    PLAN_FILE,
    Placement,
    placement_of,
)
from faceclip_serving.contract.tensors import Array
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant
from faceclip_serving.sampling.previews import PREVIEW_FILE, fit

from ..checkpoint.digests import sha256
from ..checkpoint.tokenizers import tokenizer_sources, write_tokenizers
from ..commandline import add_checkpoint, add_components, add_placement, add_runtime, add_variant
from ..engine.build import build_missing
from ..engine.record import Purpose, check_plan
from ..onnx.wanted import emulated
from ..outputs import require_own, scratch
from ..paths import MODEL_REPOSITORY, onnx_folder, repository_folder
from . import interface
from .deployments import RECORD, check_name, install, is_current, is_runtime_cache
from .render import model_source, render

PACKAGE = Path(faceclip_serving.__file__).resolve().parent


class RepositoryError(UserError):
    """A repository cannot be assembled; the message says what is missing and how to make it."""


def assemble(
    variant: Variant,
    placement: Placement,
    components: Path,
    destination: Path,
    checkpoint: Path | None = None,
    deployment: str = DEFAULT_DEPLOYMENT,
) -> Path:
    """Writes the models of `variant` on `placement` to the repository `destination`, unless the very same are there already.

    A repository may hold several deployments: models of others are left as they are. `components` holds
    `<precision>/<component>/` as `export onnx` and `export engine` write them, and `tokenizers/`; those of `checkpoint` are taken
    instead where it is given. Large files are hard-linked where possible. Raises `RepositoryError`, `TokenizerError`, and
    `DeploymentError` where the name cannot be had.
    """
    check_name(deployment)
    require_own(destination, RECORD)  # before minutes are spent
    configs = render(variant, placement, deployment)
    identity = _identity(variant, configs, components, placement, checkpoint)
    if is_current(destination, deployment, identity):
        return destination  # left alone: a server may be running from it
    with scratch(destination, RECORD) as folder:
        _fill(folder, variant, placement, components, configs, checkpoint, deployment)
        _keep_runtime_caches(destination, folder)
        install(folder, destination, deployment, identity)
    return destination


def _fill(
    folder: Path,
    variant: Variant,
    placement: Placement,
    components: Path,
    configs: dict[str, str],
    checkpoint: Path | None,
    deployment: str,
) -> None:
    """The model folders of a deployment, in a folder of their own."""
    for name, text in configs.items():
        model = folder / model_name(name, deployment)
        version = model / "1"
        version.mkdir(parents=True)
        (model / "config.pbtxt").write_text(text)
        if 'backend: "python"' in text:
            shutil.copy(model_source(name), version / "model.py")
            shutil.copytree(PACKAGE, version / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
            (version / DIGEST_FILE).write_text(package_digest(PACKAGE) + "\n")
        if name == ENSEMBLE:  # has no file of its own, and object storage has no empty folders
            shutil.copy(MODEL_REPOSITORY / ENSEMBLE / "1" / "ensemble.txt", version)
        if name in (PREPARE, FACES):
            (version / WEIGHTS_FILE).write_text(_face_encoder(variant, components, placement) + "\n")
        if name in (SAMPLER, FACES):
            _copy_statistics(components, placement, version)
        if name == STREAM:
            np.save(version / PREVIEW_FILE, _preview_factors(variant, components, placement))
    for name in COMPONENTS:
        _link_artifact(variant, components, name, placement, folder / placement.folder(name, deployment))
    prepare = folder / model_name(PREPARE, deployment) / "1"
    write_tokenizers(variant, checkpoint, prepare, components)


def _identity(
    variant: Variant, configs: dict[str, str], components: Path, placement: Placement, checkpoint: Path | None
) -> str:
    """Digest of all that an assembled repository follows from; artifacts by size and time, without what runs of a plan left."""
    digest = hashlib.sha256(package_digest(PACKAGE).encode())
    for name, text in configs.items():
        digest.update(text.encode())
        model = model_source(name)
        digest.update(model.read_bytes() if model.exists() else b"")
    folders = [components / placement.components[name].precision / name for name in COMPONENTS]
    sources = tokenizer_sources(variant, checkpoint, components)
    files = [path for source in (*folders, *sources) for path in (sorted(source.glob("*")) if source.is_dir() else [source])]
    for path in files:
        if path.exists() and not is_runtime_cache(path):
            digest.update(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    return digest.hexdigest()


def _preview_factors(variant: Variant, exported: Path, placement: Placement) -> Array:
    """Fitted to the ONNX decoder, whatever runtime the placement gives it."""
    from faceclip_serving.models.onnx_component import OnnxComponent  # here, since ONNX Runtime takes a second to import

    execution = placement.components[VAE_DECODER]
    path = exported / execution.precision / VAE_DECODER / ORT_CPU.artifact
    if not path.exists():
        cure = f"python -m export onnx --variant {variant.name} --component {VAE_DECODER} --precision {execution.precision}"
        raise RepositoryError(f"{VAE_DECODER}: expected {path}, to which previews are fitted; make it with `{cure}`")
    decoder = OnnxComponent(path, components(variant)[VAE_DECODER], ORT_CPU.providers, {})
    return fit(lambda latents: decoder.run({"latents": latents})["image"], variant.latent_channels, variant.latent_scale)


def _face_encoder(variant: Variant, exported: Path, placement: Placement) -> str:
    """Digest of the ONNX files of the face encoder, whatever runtime the placement gives it: a sealed identity is of its features."""
    precision = placement.components[FACE_ENCODER].precision
    folder = exported / precision / FACE_ENCODER
    if not (folder / ORT_CPU.artifact).exists():
        cure = f"python -m export onnx --variant {variant.name} --component {FACE_ENCODER} --precision {precision}"
        raise RepositoryError(
            f"{FACE_ENCODER}: expected {folder / ORT_CPU.artifact}, by which identities know their weights; make it with `{cure}`"
        )
    digests = [sha256(path) for path in sorted(folder.glob(f"{ORT_CPU.artifact}*"))]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def _copy_statistics(exported: Path, placement: Placement, folder: Path) -> None:
    """Those of the face encoder, where its weights have some."""
    file = exported / placement.components[FACE_ENCODER].precision / FACE_ENCODER / STATISTICS_FILE
    if file.is_file():
        shutil.copy(file, folder)


def _link_artifact(variant: Variant, components: Path, name: str, placement: Placement, folder: Path) -> None:
    execution = placement.components[name]
    source = components / execution.precision / name
    if not (source / execution.runtime.artifact).exists():
        command = "engine" if execution.runtime.package else "onnx"
        chosen = f" --runtime {placement.plans_on}" if placement.plans_on and execution.runtime.package else ""
        raise RepositoryError(
            f"{name}: expected {source / execution.runtime.artifact}; make it with"
            f" `python -m export {command} --variant {variant.name} --placement {placement.name}{chosen}`"
        )
    if execution.runtime.artifact == PLAN_FILE:
        check_plan(source, Purpose(variant, placement, name), for_triton=True, whole=True)
    folder.mkdir(parents=True, exist_ok=True)
    weights = [source / ONNX_WEIGHTS_FILE] if execution.runtime.artifact == FUSED_FILE else []
    for path in (*source.glob(execution.runtime.artifact + "*"), *weights):
        if not is_runtime_cache(path):  # of `export verify`; the server's own is kept
            _link(path, folder / path.name)


def _keep_runtime_caches(before: Path, after: Path) -> None:
    """What plans were finished to on a card, where the repository has the same plans as before: minutes of a first start."""
    for cache in before.rglob(f"{PLAN_FILE}.*{CACHE_SUFFIX}"):
        folder = after / cache.relative_to(before).parent
        plans = (folder / PLAN_FILE, cache.with_name(PLAN_FILE))
        if all(plan.is_file() for plan in plans) and filecmp.cmp(*plans):
            _link(cache, folder / cache.name)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    add_placement(parser)
    add_components(parser, "folder of exported components")
    add_checkpoint(parser, "take the tokenizers from here (default: the variant's own, or those that `export onnx` wrote)")
    parser.add_argument("--output", type=Path, help="where to write (default: build/<variant>-<placement>)")
    parser.add_argument(
        "--name",
        default=DEFAULT_DEPLOYMENT,
        help="under which the server offers the variant (default: %(default)s); a further name in the same --output puts a"
        " further variant beside it, and its models are called after it: flux, flux_stream, flux_sampler, ...",
    )
    parser.add_argument(
        "--engines",
        action="store_true",
        help="build plans that are missing or do not serve here first, for the card that is here",
    )
    parser.add_argument(
        "--emulate",
        action="store_true",
        help="the placement's rows, sizes, tiles, admission and precision on a machine without its card: ONNX Runtime's CPU provider"
        " runs what a GPU would; to try a placement, never to measure it",
    )
    add_runtime(parser)
    parser.add_argument("--gpu", type=int, default=0, metavar="N", help="the GPU of what runs on one (default: %(default)s)")
    parser.add_argument("--render", action="store_true", help=argparse.SUPPRESS)  # the old spelling of `interface`


def run(args: argparse.Namespace) -> int:
    if args.render:
        return interface.run(argparse.Namespace(check=False))
    if args.gpu < 0:
        raise RepositoryError(
            f"gpu: expected 0 or more, as nvidia-smi numbers them, got {args.gpu}; leave --gpu out for the first"
        )
    variant = VARIANTS[args.variant]
    placement = replace(placement_of(variant, args.placement), gpu=args.gpu)
    placement = placement.on(args.runtime) if args.runtime else placement
    components = args.components or onnx_folder(variant)
    if args.emulate:
        placement = emulated(variant, placement, components)
        print(f"emulated: {placement.emulated or 'nothing, this placement needs no card'}", file=sys.stderr)
    elif args.engines:
        build_missing(variant, placement, components)
    destination = args.output or repository_folder(variant, placement)
    assemble(variant, placement, components, destination, args.checkpoint, args.name)
    print(f"assembled {destination}", file=sys.stderr)
    print(
        json.dumps({"repository": str(destination), "name": args.name, "variant": variant.name, "placement": placement.label})
    )
    return 0
