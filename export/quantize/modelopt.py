"""An INT8 or FP8 denoiser: NVIDIA ModelOpt puts explicit Q/DQ pairs into our ONNX file, calibrated on real sampling runs.

The order: prompts are drawn with the file as it is, and what the denoiser was given is kept; ModelOpt, in a Python of its own, since it
needs another numpy than the server's wheel, quantises all products but those excluded; that it did is counted; the same prompts and as
many that calibrated nothing are drawn again with the result, and only if every picture is near enough does it get its place, as a
precision of its own beside `fp32` and `fp16`. Which layers are excluded and what is near enough stands beside the component
(`Network.quantization`). Weights are stored in 8 bits; what is not quantised keeps the precision it had. Knows the steps and ModelOpt's
command; nothing of how it quantises.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from faceclip_serving.contract.components import components
from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.names import DENOISER
from faceclip_serving.contract.placements import ONNX_FILE
from faceclip_serving.contract.tensors import Array
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant

from ..commandline import add_components, add_variant
from ..onnx.draw import Run, psnr_db
from ..onnx.graph_precision import ONNX_PRODUCTS
from ..onnx.record import METADATA, describe_files, is_whole, read_metadata
from ..onnx.wanted import FACTOR_PRECISIONS
from ..outputs import appearing
from ..paths import onnx_folder
from .compare_pictures import opener
from .modelopt_graph import NAME_END, annotate, restore
from .sitting import UNSEEN, Sitting, add_sitting, sitting_from

if TYPE_CHECKING:
    from ..networks.components import Quantization

MODES = FACTOR_PRECISIONS
MODULE = "modelopt.onnx.quantization"
REQUIREMENTS = "requirements-quantize.txt"
CALIBRATION_METHOD = "max"
"""An activation's scale is from its largest value. The other method, by histogram, fails on FP16 (numpy: too many bins), and of
FP32 made a worst picture that was no nearer."""
SMALLEST_SHARE = 0.9
"""Of the products that may be quantised, how many must be. ModelOpt leaves out those too small to gain: 16 channels or fewer."""


class QuantizationError(UserError):
    """A network cannot be quantised, or draws other pictures when it is; the message says why and what to do."""


def calibrate(
    variant: Variant, folders: Mapping[str, Path], sitting: Sitting, most_rows: int
) -> tuple[dict[str, Array], list[Array]]:
    """Denoiser input -> its values over the sampling runs [rows, ...], and the pictures that these led to.

    `folders`: component -> the folder of its ONNX file. Of more rows than `most_rows`, evenly spaced ones are kept, so that every
    part of the runs is there.
    """
    from .calibration import draw_all, recorded  # here, since torch takes seconds to import

    kept: list[Mapping[str, Array]] = []
    plain = opener(variant, folders)

    @contextmanager
    def opened(component: str) -> Iterator[Run]:
        with plain(component) as run:
            yield recorded(run, kept) if component == DENOISER else run

    pictures = draw_all(variant, sitting, opened)
    rows = {name: np.concatenate([each[name] for each in kept]) for name in kept[0]}
    count = len(rows["timestep"])
    chosen = np.unique(np.linspace(0, count - 1, min(count, most_rows)).round().astype(int))
    return {name: values[chosen] for name, values in rows.items()}, pictures


def excluded_nodes(model: onnx.ModelProto, excluded: Iterable[str]) -> list[str]:
    """Names of the products that stay as they are: those of excluded layers, by the start of their weights' names, and
    attention's, which have no weight."""
    weights = {tensor.name for tensor in model.graph.initializer}
    starts = tuple(excluded)
    found = []
    for node in model.graph.node:
        if node.op_type not in ONNX_PRODUCTS:
            continue
        own = [name for name in node.input if name in weights]
        layers = [name for name in own if any(fnmatch.fnmatchcase(name, f"{start}*") for start in starts)]
        if layers or not own:
            found.append(node.name)
    return found


def require_near(pictures: Sequence[Array], references: Sequence[Array], mode: str, rules: Quantization) -> list[float]:
    """PSNR of each picture, dB. Raises `QuantizationError` where one is below the component's bound."""
    bound = rules.smallest_psnr_db[mode]
    found = [psnr_db(picture, reference) for picture, reference in zip(pictures, references, strict=True)]
    if not min(found) >= bound:  # also where it is not a number
        raise QuantizationError(
            f"{mode}: the pictures are {', '.join(f'{value:.1f}' for value in found)} dB from those of the graph it was made of,"
            f" expected at least {bound:.0f}; not accepted. Exclude more layers (Network.quantization in export/networks/components.py), or"
            " calibrate on more prompts and steps"
        )
    return found


def quantize(
    variant: Variant,
    mode: str,
    folders: Mapping[str, Path],
    destination: Path,
    sitting: Sitting,
    most_rows: int,
    python: str,
    unseen: Sequence[str] = UNSEEN,
) -> dict[str, Any]:
    """Writes the quantised denoiser to the folder `destination`, if its pictures pass, and returns its metadata.

    `sitting` calibrates; its prompts and the `unseen` ones are what it must draw as before.
    """
    from ..networks.components import network, unquantized  # here, since torch takes seconds to import
    from ..onnx.graph import verify_file
    from .calibration import draw_all

    layers, rules = unquantized(variant, DENOISER), network(variant, DENOISER).quantization
    assert rules is not None
    base = _base(variant, folders)
    version = modelopt_version(python)
    with appearing(destination, METADATA) as partial:
        print("drawing the calibration pictures", file=sys.stderr, flush=True)
        rows, references = calibrate(variant, folders, sitting, most_rows)
        others = replace(sitting, prompts=tuple(unseen))
        references += draw_all(variant, others, opener(variant, folders))
        source = folders[DENOISER] / ONNX_FILE
        excluded = excluded_nodes(onnx.load(str(source), load_external_data=False), layers)
        _run_modelopt(python, source, partial, mode, rows, excluded)
        verify_file(partial / ONNX_FILE, components(variant)[DENOISER])
        operators = quantized_products(partial / ONNX_FILE, len(excluded))
        print("drawing them again, quantised", file=sys.stderr, flush=True)
        quantized = opener(variant, {**folders, DENOISER: partial})
        pictures = [*draw_all(variant, sitting, quantized), *draw_all(variant, others, quantized)]
        found = [round(value, 2) for value in require_near(pictures, references, mode, rules)]
        known = len(sitting.prompts)
        metadata = {
            "variant": variant.name,
            "component": DENOISER,
            "precision": mode,
            "identity": f"{mode} of {base['identity']}",
            "base": {"precision": base["precision"], "identity": base["identity"]},
            "modelopt": version,
            "calibration": {"prompts": list(sitting.prompts), "steps": sitting.steps, "rows": len(rows["timestep"])},
            "excluded": {"layers": list(layers), "products": len(excluded)},
            "operators": operators,
            "picture_psnr_db": {"calibration": found[:known], "unseen": found[known:]},
            "unseen_prompts": list(unseen),
            "smallest_psnr_db": rules.smallest_psnr_db[mode],
            "files": describe_files(partial),
        }
        (partial / METADATA).write_text(json.dumps(metadata, indent=2) + "\n")
    return metadata


def quantized_products(path: Path, excluded: int) -> dict[str, int]:
    """How many products of a file have two dequantised factors, one, or none. Raises `QuantizationError` where too few have two.

    `excluded`: how many were to stay as they are. A product with one dequantised factor runs in floating point: its weight was
    rounded, and nothing is faster for it.
    """
    graph = onnx.load(str(path), load_external_data=False).graph
    made_by = {output: node for node in graph.node for output in node.output}

    def dequantized(name: str) -> bool:
        node = made_by.get(name)
        while node is not None and node.op_type in ("Cast", "Transpose", "Reshape"):
            node = made_by.get(node.input[0])
        return node is not None and node.op_type == "DequantizeLinear"

    factors = [sum(map(dequantized, node.input[:2])) for node in graph.node if node.op_type in ONNX_PRODUCTS]
    both, one, none = (factors.count(number) for number in (2, 1, 0))
    wanted = len(factors) - excluded
    if one or both < max(1, SMALLEST_SHARE * wanted):
        raise QuantizationError(
            f"{path.name}: expected two quantised factors in at least {SMALLEST_SHARE:.0%} of the {wanted} products that are not"
            f" excluded, found {both}; in {one} only one factor is, so they would run in floating point: not accepted. ModelOpt says"
            ' "failed to infer the type of tensor" where an operator is missing in UNTYPED of export/quantize/modelopt_graph.py'
        )
    return {"both_factors": both, "one_factor": one, "as_they_were": none}


def modelopt_version(python: str) -> str:
    """ModelOpt's version in an interpreter. Raises `QuantizationError` where it is not there."""
    command = [python, "-c", f"import {MODULE}, importlib.metadata as m; print(m.version('nvidia-modelopt'))"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise QuantizationError(f"--python {python}: {error}") from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise QuantizationError(
            f"{python} has no NVIDIA ModelOpt ({reason}); it needs another numpy than this environment, so make it one of its own:"
            f" python3 -m venv .venv-quantize && .venv-quantize/bin/pip install -r {REQUIREMENTS}, then --python"
            " .venv-quantize/bin/python"
        )
    return done.stdout.strip().splitlines()[-1]


def _run_modelopt(
    python: str, source: Path, partial: Path, mode: str, rows: Mapping[str, Array], excluded: Sequence[str]
) -> None:
    work = partial / "work"
    work.mkdir()
    for path in source.parent.glob(f"{ONNX_FILE}?*"):
        shutil.copy(path, work)  # ModelOpt rewrites what it is given, and onnx refuses weights with two hard links
    model = onnx.load(str(source), load_external_data=False)
    annotate(model)
    onnx.save(model, str(work / ONNX_FILE))
    data = work / "calibration.npz"
    np.savez(data, **dict(rows))
    log = partial.with_name(f"{partial.name}.log")
    # It leaves out products that meet a single row, as modulations would, row by row; a guided picture has two.
    shapes = [f"{name}:{'x'.join(map(str, values[:2].shape))}" for name, values in rows.items()]
    command = [
        python, "-m", MODULE, f"--quantize_mode={mode}", f"--onnx_path={(work / ONNX_FILE).resolve()}",
        f"--calibration_data_path={data.resolve()}", f"--calibration_shapes={','.join(shapes)}",
        f"--output_path={(partial / ONNX_FILE).resolve()}", "--calibration_eps", "cpu",
        f"--calibration_method={CALIBRATION_METHOD}", "--dq_only", "--disable_mha_qdq", "--use_external_data_format",
        "--high_precision_dtype=fp32",  # converts nothing: the graph says its precision
        "--op_types_to_quantize", *sorted(ONNX_PRODUCTS & {"Conv", "MatMul", "Gemm"}),
        "--nodes_to_exclude", *(f"^{re.escape(name + NAME_END)}$" for name in excluded),
    ]  # fmt: skip
    print(f"ModelOpt: {mode}", file=sys.stderr, flush=True)
    with log.open("w") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
    shutil.rmtree(work)
    if done.returncode != 0 or not (partial / ONNX_FILE).exists():
        tail = "\n  ".join(log.read_text(errors="replace").splitlines()[-5:])
        raise QuantizationError(f"ModelOpt ended with code {done.returncode}:\n  {tail}\n  the whole log: {log}")
    quantized = onnx.load(str(partial / ONNX_FILE), load_external_data=False)
    restore(quantized, excluded)
    onnx.save(quantized, str(partial / ONNX_FILE))
    for path in partial.glob(f"{ONNX_FILE}?*"):
        shutil.copymode(source, path)  # it was a temporary file, which nobody else may read
    log.unlink()


def _base(variant: Variant, folders: Mapping[str, Path]) -> dict[str, Any]:
    for component, folder in folders.items():
        metadata = read_metadata(folder)
        if metadata is None or not is_whole(folder, metadata):
            raise QuantizationError(
                f"{component}: expected {folder / ONNX_FILE}, whole; make it with `python -m export onnx --variant {variant.name}"
                f" --precision {folder.parent.name}`"
            )
    found = read_metadata(folders[DENOISER])
    assert found is not None
    return found


# ---------------------------------------------------------------------------------------------------------------- command
def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    parser.add_argument("--mode", choices=MODES, required=True)
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16"),
        default="fp16",
        help="of the file to start from, which what is not quantised keeps (default: %(default)s)",
    )
    add_components(parser, "root of the ONNX files")
    parser.add_argument(
        "--rows", type=int, default=64, metavar="N", help="denoiser rows to calibrate on (default: %(default)s)"
    )
    parser.add_argument("--python", default=sys.executable, help="interpreter that has NVIDIA ModelOpt (default: this one)")
    add_sitting(parser)
    parser.add_argument(
        "--unseen",
        action="append",
        metavar="PROMPT",
        help="draw this to judge by, and calibrate nothing on it; may be repeated (default: four of our own)",
    )


def run(args: argparse.Namespace) -> int:
    variant = VARIANTS[args.variant]
    root = args.components or onnx_folder(variant)
    folders = {name: root / args.precision / name for name in components(variant)}
    destination = root / args.mode / DENOISER
    unseen = args.unseen or UNSEEN
    metadata = quantize(variant, args.mode, folders, destination, sitting_from(args), args.rows, args.python, unseen)
    print(json.dumps({"folder": str(destination), **metadata}))
    return 0
