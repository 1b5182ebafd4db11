"""A translator of prompts: an OPUS-MT checkpoint (transformers' MarianMTModel) as ONNX, which the client runs on ONNX Runtime.

Name the folder that it writes in FACECLIP_TRANSLATOR. The files of the checkpoint are config.json, source.spm, vocab.json and
model.safetensors or pytorch_model.bin; `python -m export download --only translator` fetches those for Chinese.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faceclip_serving.contract.errors import UserError

from ..outputs import appearing, require_own
from ..paths import BUILD, CHECKPOINT
from .graphs import EMBEDDING, TranslatorError, Weights, check_config, decoder, encoder
from .pieces import UNKNOWN, tokenizer_of

RECORD = "translator.json"
"""Written last: what the client needs beside networks and pieces."""
BEAMS, LONGEST = 4, 512
"""Where the checkpoint says nothing of its own."""


def write_translator(checkpoint: Path, language: str, destination: Path) -> Path:
    """Writes `encoder.onnx`, `decoder.onnx`, `tokenizer.json` and `translator.json`. Raises `TranslatorError`, `OutputError`."""
    require_own(destination, RECORD)
    config = _document(checkpoint / "config.json")
    check_config(config)
    pieces: dict[str, int] = _document(checkpoint / "vocab.json")
    weights = _weights(checkpoint)
    vocabulary = [""] * len(weights[EMBEDDING])
    for piece, number in pieces.items():
        if not 0 <= number < len(vocabulary):
            raise TranslatorError(
                f"vocab.json: expected numbers below {len(vocabulary)}, as many as there are words, got {number}"
            )
        vocabulary[number] = piece
    told = {
        "language": language,
        "vocabulary": vocabulary,
        "unknown": pieces[UNKNOWN],
        "end": int(config["eos_token_id"]),
        "start": int(config["decoder_start_token_id"]),
        "never": [int(config["pad_token_id"])],
        "beams": int(config.get("num_beams") or BEAMS),
        "longest": min(int(config.get("max_length") or LONGEST), int(config["max_position_embeddings"])),
        "heads": int(config["decoder_attention_heads"]),
    }
    tokenizer = tokenizer_of((checkpoint / "source.spm").read_bytes())
    with appearing(destination, RECORD) as folder:
        for name, graph in (("encoder", encoder), ("decoder", decoder)):
            (folder / f"{name}.onnx").write_bytes(graph(config, weights).SerializeToString())
        (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
        (folder / RECORD).write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")
    return destination


def _document(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TranslatorError(f"{file}: expected JSON, got another file ({error})") from None


def _weights(checkpoint: Path) -> Weights:
    """Name -> array, with the shared embedding under its own name."""
    import torch  # here: only for reading, and it takes seconds to import

    from ..checkpoint.tensor_files import read_tensors

    safe, plain = checkpoint / "model.safetensors", checkpoint / "pytorch_model.bin"
    found: Mapping[str, torch.Tensor] = (
        read_tensors(safe) if safe.is_file() else torch.load(plain, map_location="cpu", weights_only=True)
    )
    weights = {name: tensor.float().numpy() for name, tensor in found.items()}
    for name in ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"):
        if EMBEDDING not in weights and name in weights:
            weights[EMBEDDING] = weights[name]
    if EMBEDDING not in weights:
        raise TranslatorError(
            f"checkpoint: expected the tensor {EMBEDDING}, got none; use an OPUS-MT checkpoint of MarianMTModel"
        )
    return weights


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint", type=Path, default=CHECKPOINT / "translator", metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("--language", default="zh", help="code of the language that it translates from (default: %(default)s)")
    parser.add_argument("--to", type=Path, default=BUILD / "translator", metavar="DIR", help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    try:
        folder = write_translator(args.checkpoint, args.language, args.to)
    except FileNotFoundError as error:
        raise UserError(
            f"checkpoint: no file '{error.filename}'; fetch it: python -m export download --only translator, or name another folder"
        ) from None
    print(f"wrote {folder}; use it by FACECLIP_TRANSLATOR={folder.absolute()}", file=sys.stderr)
    print(json.dumps({"translator": str(folder)}))
    return 0
