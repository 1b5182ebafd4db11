"""One picture from nothing: export, assemble, serve, generate. `make demo` runs this; the last line on stdout is JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from export.build import BUILD, build_repository
from faceclip import FaceCLIPPipeline
from faceclip_serving.profiles import CPU
from faceclip_serving.sdxl_variants import TINY_SDXL
from server.probe import server_version
from server.process import Ports, TritonServer, interruptible

PHOTO = Path(__file__).resolve().parent / "astronaut.jpg"
OUTPUT = Path("out/demo.png")
VARIANT, PROFILE = TINY_SDXL, CPU


def main() -> int:
    started = time.monotonic()
    stages: dict[str, float] = {}

    def done(stage: str) -> None:
        stages[stage] = round(time.monotonic() - started - sum(stages.values()), 3)
        print(f"{stage}: {stages[stage]:.1f} s", file=sys.stderr)

    repository = build_repository(VARIANT, PROFILE)
    done("build")
    with interruptible(), TritonServer(repository, Ports.free(), log=BUILD / "demo-server.log") as server:
        server.wait_ready()
        done("start")
        with FaceCLIPPipeline.from_pretrained(server.url) as pipe:
            result = pipe("portrait of an astronaut, studio light", face_image=PHOTO, seed=7, num_inference_steps=20)
            version = server_version(server.url)
        done("generate")
    OUTPUT.parent.mkdir(exist_ok=True)
    result.images[0].save(OUTPUT)
    done("stop")
    for warning in result.warnings:
        print(f"note: {warning}", file=sys.stderr)
    summary = {
        "image": str(OUTPUT),
        "seed": result.seed,
        "size": list(result.images[0].size),
        "wall_s": round(time.monotonic() - started, 3),
        "stages_s": {**stages, **{f"generate.{name}": seconds for name, seconds in result.details["timings_s"].items()}},
        "server": version,
        "variant": VARIANT.name,
    }
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
