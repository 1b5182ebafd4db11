"""`python -m export <command>`: from a checkpoint to what Triton loads. Progress goes to stderr; the last line of stdout is JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .commandline import Command, run_command

COMMANDS = {
    "download": Command("export.checkpoint.download", "fetch the official weights"),
    "recogniser": Command("export.recogniser.command", "fetch the recogniser for the faces that a policy lists"),
    "translator": Command("export.translator.command", "a translator of prompts for the client, from an OPUS-MT checkpoint"),
    "onnx": Command("export.onnx.command", "export components to ONNX, with parity"),
    "forecast": Command("export.forecast.forecast", "what memory a placement needs, and whether it fits"),
    "machine": Command("export.engine.machine", "whether this machine can serve a placement: packages, driver, card, memory"),
    "engine": Command("export.engine.build", "compile the ONNX files to engines, for TensorRT for RTX without a GPU too"),
    "verify": Command("export.engine.verify", "compare every engine with ONNX Runtime"),
    "inspect": Command("export.engine.inspect", "the precision of every layer of the engines"),
    "ranges": Command("export.quantize.ranges", "how large values inside the networks become, for FP16"),
    "picture": Command("export.quantize.compare_pictures", "compare the pictures of two precisions"),
    "quantize": Command("export.quantize.quantize", "a denoiser with INT4 weights, or in INT8 or FP8, calibrated"),
    "interface": Command("export.repository.interface", "write what follows from the declarations: configs, client, docs"),
    "repository": Command("export.repository.assemble", "assemble a model repository that Triton can load"),
}
ALIASES = {"plan": "forecast"}
"""Old spellings, which go on working."""

_PURPOSE = "From a checkpoint to what Triton loads. `python -m export <command> --help` explains a step."

_OVERVIEW = """steps, in order:
  python -m export download --to checkpoint                official weights (not needed for tiny-sdxl)
  python -m export onnx --variant tiny-sdxl                components -> ONNX, proven against torch
  python -m export engine --variant sdxl                   ONNX -> TensorRT engines (where a GPU serves; docs/tensorrt.md)
  python -m export verify --variant sdxl                   engines against ONNX Runtime
  python -m export repository --variant tiny-sdxl          ONNX or engines -> a model repository for Triton"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    return run_command("python -m export", _PURPOSE, COMMANDS, argv, epilog=_OVERVIEW, aliases=ALIASES)


if __name__ == "__main__":
    sys.exit(main())
