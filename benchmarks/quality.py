"""`python -m benchmarks quality`: is it the same person, does the picture obey the prompt, is it good; beside the peers.

For the rendered world the people, prompts and judges of `quality_world` are used, and pictures are made with the committed weights of
the joint encoder and of whichever peer has weights. `--pictures FOLDER --recogniser MODEL.onnx` scores pictures that any variant made
of real people (`quality_photographs`). Writes grids, curves and an HTML report; the last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.autoencoder import decode_pictures
from training.conditioning import Faces
from training.diffusion import Guidance, generate
from training.weights import ADAPTER, JOINT, TEXT_ONLY, read_generator, read_judges, read_vae

from .quality_metrics import psnr_db
from .quality_photographs import score_folder
from .quality_report import write_report
from .quality_world import Cases, face_set, judge, make_cases

WEIGHTS = Path(__file__).resolve().parents[1] / "weights" / "nano"
_ROWS = 8
"""Pictures made together; more only costs memory."""

Pictures = NDArray[np.uint8]
Maker = Callable[[Cases, Guidance], Pictures]


def maker(folder: Path, peer: str, half: bool = False) -> tuple[Maker, Callable[[Cases], Faces]]:
    """(cases, guidance) -> pictures [n, 128, 128, 3], with the weights of one peer; and the features of the cases' references.

    `half`: matrices and convolutions in FP16, as a GPU runs them.
    """
    unet, conditioner = read_generator(folder, peer)
    vae = read_vae(folder)

    def features(cases: Cases) -> Faces:
        return face_set(conditioner.encoder.branches[0].face_encoder, cases.data)

    def make(cases: Cases, guidance: Guidance) -> Pictures:
        faces = features(cases)
        parts = []
        for i in range(0, len(cases.prompts), _ROWS):
            rows = slice(i, i + _ROWS)
            with torch.autocast("cpu", torch.float16, enabled=half):
                latents = generate(
                    unet,
                    conditioner,
                    cases.prompts[rows],
                    faces,
                    cases.references[rows],
                    replace(guidance, seed=guidance.seed + i),
                )
            parts.append(decode_pictures(vae, latents))
        return np.concatenate(parts)

    return make, features


def available(folder: Path) -> list[str]:
    files = {JOINT: "unet", ADAPTER: "adapter_unet", TEXT_ONLY: "text_only_unet"}
    return [peer for peer, file in files.items() if (folder / f"{file}.safetensors").exists()]


def faceless(cases: Cases) -> Cases:
    return replace(cases, references=[[] for _ in cases.references])


def compare(folder: Path, cases: Cases, guidance: Guidance) -> tuple[dict[str, Any], dict[str, Pictures]]:
    """Every peer's columns and pictures. Without weights of its own, `text_only` is the joint model that is shown no face."""
    judges = read_judges(folder)
    table: dict[str, Any] = {"real": dict(judge(cases.data.pictures[_rows_of(cases)], cases, *judges))}
    pictures: dict[str, Pictures] = {}
    for peer in available(folder):
        start = time.perf_counter()
        pictures[peer] = maker(folder, peer)[0](cases, guidance)
        seconds = (time.perf_counter() - start) / len(cases.prompts)
        table[peer] = {**judge(pictures[peer], cases, *judges), "seconds_per_picture": round(seconds, 3)}
    if TEXT_ONLY not in pictures:
        pictures[TEXT_ONLY] = maker(folder, JOINT)[0](faceless(cases), guidance)
        table[TEXT_ONLY] = {**judge(pictures[TEXT_ONLY], cases, *judges), "weights": "joint, shown no face"}
    return table, pictures


def _rows_of(cases: Cases) -> NDArray[np.int64]:
    """One real picture of each case's person that is not the reference: the upper bound of the identity column."""
    from training.dataset import PICTURES

    return np.asarray(cases.who * PICTURES + np.arange(len(cases.who)) % 2)


SWEEPS: dict[str, Sequence[float | int | str]] = {
    "id_guidance_scale": (0.0, 1.0, 2.0, 3.0, 4.0, 5.0),
    "guidance_scale": (1.0, 2.0, 3.0, 4.0, 6.0, 8.0),
    "blend_weight": (0.0, 0.25, 0.5, 0.75, 1.0),
    "references": (1, 2, 3, 4),
    "num_inference_steps": (5, 10, 20, 40),
    "scheduler": ("EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DDIMScheduler"),
}
"""Parameter -> values; everything else stays at the defaults."""


def setting(name: str, value: Any, usual: Guidance) -> Guidance:
    """The usual guidance with one parameter of the public request changed."""
    changes: dict[str, dict[str, Any]] = {
        "id_guidance_scale": {"identity": value},
        "guidance_scale": {"text": value, "identity": value},
        "blend_weight": {"blend": value},
        "num_inference_steps": {"steps": value},
        "scheduler": {"scheduler": value},
    }
    return replace(usual, **changes.get(name, {}))


def sweep(folder: Path, cases: Cases, guidance: Guidance, names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Similarity, text accuracy and time for each value of each parameter."""
    judges, make = read_judges(folder), maker(folder, JOINT)[0]
    curves: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        curves[name] = []
        for value in SWEEPS[name]:
            shown = cases
            if name == "references":
                shown = replace(cases, references=[[int(p) * 4 + 3 - k for k in range(int(value))] for p in cases.who])
            start = time.perf_counter()
            columns = judge(make(shown, setting(name, value, guidance)), cases, *judges)
            curves[name].append({
                "value": value,
                "id_similarity": columns["id_similarity"],
                "text_accuracy": columns["text_accuracy"]["mean"],  # type: ignore[index]
                "verification_auc": columns["verification_auc"],
                "seconds_per_picture": round((time.perf_counter() - start) / len(cases.prompts), 3),
            })  # fmt: skip
            print(json.dumps({name: curves[name][-1]}), file=sys.stderr, flush=True)
    return curves


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    folder: Path = arguments.weights
    cases = make_cases(arguments.work, arguments.people, arguments.prompts)
    guidance = Guidance(text=arguments.guidance_scale, identity=arguments.guidance_scale, steps=arguments.steps)
    table, pictures = compare(folder, cases, guidance)
    few = replace(cases, prompts=cases.prompts[:8], references=cases.references[:8])
    document: dict[str, Any] = {
        "verification_auc": table[JOINT]["verification_auc"],
        "id_similarity": {peer: row["id_similarity"] for peer, row in table.items()},
        "text_accuracy": {peer: row["text_accuracy"]["mean"] for peer, row in table.items()},
        "psnr_fp16_db": round(psnr_db(pictures[JOINT][:8], maker(folder, JOINT, half=True)[0](few, guidance)), 2),
        "table": table,
    }
    if arguments.sweeps:
        names = list(SWEEPS) if arguments.sweeps == ["all"] else arguments.sweeps
        document["sweeps"] = sweep(folder, cases, guidance, names)
    document["protocol"] = {
        "people": arguments.people, "prompts": arguments.prompts, "guidance": vars(guidance), "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores", "torch": torch.__version__,
        "quality": "kernel distance of the attribute classifier's features to held-out renders",
    }  # fmt: skip
    write_report(arguments.output, cases, pictures, document)
    return document


def run(arguments: argparse.Namespace) -> int:
    if arguments.pictures is not None:
        document: dict[str, Any] = score_folder(arguments.pictures, arguments.recogniser)
    elif not list(arguments.weights.glob("*.safetensors")):
        print(
            f"error: weights: expected trained ones in {arguments.weights}; make them with `python -m training all`, then"
            " `python -m training weights`, or name another folder with --weights",
            file=sys.stderr,
        )
        return 1
    else:
        torch.set_num_threads(arguments.threads)
        document = measure(arguments)
    print(json.dumps(document))
    return 0


def add_command(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "quality", help="identity, text alignment and quality, beside the peers", description=__doc__
    )
    parser.add_argument("--variant", choices=["nano"], default="nano", help="the variant whose embedded world is evaluated")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--people", type=int, default=20, help="test identities")
    parser.add_argument("--prompts", type=int, default=4, help="scenes of each")
    parser.add_argument("--guidance-scale", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--sweeps", nargs="*", metavar="PARAMETER", help=f"all, or of {', '.join(SWEEPS)}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("build/quality"), help="where the test pictures are kept")
    parser.add_argument("--output", type=Path, default=Path("build/quality/report"))
    parser.add_argument(
        "--pictures", type=Path, help="score pictures of real people: one folder per person, with reference.png"
    )
    parser.add_argument(
        "--recogniser", type=Path, help="an ONNX face recogniser for --pictures: aligned 112 x 112 RGB -> a vector"
    )
    parser.set_defaults(run=run)
