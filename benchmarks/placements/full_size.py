"""One full-size placement through the real server: a guided picture with a face, its seconds and memory here.

Weights are deterministic stand-ins, so the picture shows nothing; that it comes back, finite and of the size asked for, is the point.
Where this machine lacks what the placement needs, it is emulated: times and memory are those of ONNX Runtime on this machine's CPU then,
never the card's. Exports what is missing, which takes minutes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from export.commandline import add_placement
from export.engine.machine import checks
from export.paths import ASSETS, BUILD
from faceclip_serving.contract.names import COMPONENTS
from faceclip_serving.contract.placements import Placement, placement_of
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant

from ..measure import gpu
from ..measure.example import PHOTO, PROMPT
from ..measure.report import emit, say

EXPORTS = BUILD / "seeded"
"""Apart from `build/onnx`, where somebody's real weights may lie."""
TINY_TOKENIZER = ASSETS / "tiny-tokenizer"


def stand_in_tokenizer(variant: Variant, root: Path) -> Path:
    """A folder as a checkpoint has it, with a tokenizer of few words whose special tokens have the variant's ids."""
    (tokens,) = variant.tokens
    folder = root / tokens.source
    folder.mkdir(parents=True)
    words = json.loads((TINY_TOKENIZER / "vocab.json").read_text(encoding="utf-8"))
    special = {"<|startoftext|>": tokens.begin, "<|endoftext|>": tokens.end, "id</w>": tokens.identity_token}
    (folder / "vocab.json").write_text(json.dumps({**words, **special}), encoding="utf-8")
    shutil.copy(TINY_TOKENIZER / "merges.txt", folder)
    return root


def exported(variant: Variant, placement: Placement) -> Path:
    """Root of the components of an emulated placement, with stand-in weights."""
    from export.onnx.export import export_components
    from export.onnx.wanted import Export

    wanted = [Export(variant, name, placement.components[name].precision, seeded=True) for name in COMPONENTS]
    root = EXPORTS / variant.name
    for made in export_components(wanted, root):
        say(f"{made['component']} {made['precision']}: {sum(each['bytes'] for each in made['files'].values()) / 1e9:.2f} GB")
    return root


def served(variant: Variant, placement: Placement, components: Path, side: int, steps: int, repeats: int) -> dict[str, Any]:
    """What a request takes on a server of its own: the first one, and the median of those after it."""
    from export.repository.assemble import assemble
    from faceclip import FaceCLIPPipeline
    from server.process import Ports, TritonServer

    from ..measure.host_memory import by_process, pids, start_peak, usage

    with tempfile.TemporaryDirectory(dir=BUILD) as folder:  # beside the exports, so that artifacts are linked and not copied
        tokenizer = stand_in_tokenizer(variant, Path(folder) / "checkpoint")
        repository = assemble(variant, placement, components, Path(folder) / "repository", tokenizer)
        started = time.monotonic()
        with TritonServer(repository, Ports.free(), log=Path(folder) / "server.log") as server:
            server.wait_ready(1800)
            ready_s = time.monotonic() - started
            say(f"ready after {ready_s:.0f} s, the probe's guided request at the smallest size included")
            start_peak(server)
            with FaceCLIPPipeline.from_pretrained(server.url, timeout_s=1800) as pipe, gpu.Peak(pids(server)) as on_gpu:
                seconds = []
                for _ in range(repeats):
                    began = time.monotonic()
                    result = pipe(PROMPT, face_image=PHOTO, height=side, width=side, num_inference_steps=steps, seed=1)
                    seconds.append(time.monotonic() - began)
                    say(f"a picture: {seconds[-1]:.2f} s")
            memory = {"all": usage(server), "by_process": {name: each["peak"] for name, each in by_process(server).items()}}
    picture = np.asarray(result.images[0])
    return {
        "ready_s": round(ready_s, 1),
        "request_s": round(seconds[0], 3),
        "later_requests_s": round(statistics.median(seconds[1:]), 3) if seconds[1:] else None,
        "timings_s": result.details["timings_s"],
        "sampling": result.details["sampling"],
        "faces": len(result.details["faces"]),
        "emulated": result.details["emulated"],
        "picture": {"shape": list(picture.shape), "min": int(picture.min()), "max": int(picture.max())},
        "peak_bytes": memory,
        "gpu_peak_bytes": on_gpu.bytes,
        "gpu_card_bytes": on_gpu.card_bytes,
        "gpus": gpu.devices(),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--variant", choices=("sdxl",), default="sdxl", help="default: %(default)s")
    add_placement(parser, "8gb", "the placement")
    parser.add_argument("--side", type=int, default=256, help="height and width, pixels (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=1, help="requests, one after the other (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    variant = VARIANTS[args.variant]
    wanted = placement_of(variant, args.placement)
    lacking = [each.line for each in checks(wanted) if each.problem]
    for line in lacking:
        say(f"emulated, since {line}")
    placement = wanted.emulate() if lacking else wanted
    found = served(variant, placement, exported(variant, placement), args.side, args.steps, args.repeats)
    emit("full-size", {"variant": variant.name, "placement": placement.label, "side": args.side, "steps": args.steps, **found})
    return 0
