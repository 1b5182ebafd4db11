"""CLIP's BPE files -> the `tokenizer.json` that the `prepare` model reads.

A checkpoint brings `vocab.json` and `merges.txt`; small variants bring the same two files in this repository. transformers'
CLIPTokenizer knows how they are read.
"""

from __future__ import annotations

import json
from pathlib import Path

from faceclip_serving.variants import Variant

ASSETS = Path(__file__).resolve().parent / "assets"


class TokenizerError(RuntimeError):
    """Tokenizer files are missing or do not fit the variant."""


def write_tokenizers(variant: Variant, checkpoint: Path | None, destination: Path) -> None:
    """Writes every tokenizer of the variant into `destination`. Raises `TokenizerError`."""
    from transformers import CLIPTokenizer

    for tokens in variant.tokens:
        source = (
            (ASSETS / variant.tokenizer_assets)
            if variant.tokenizer_assets
            else (checkpoint or Path("checkpoint")) / "tokenizer"
        )
        vocab_path, merges_path = source / "vocab.json", source / "merges.txt"
        missing = [path.name for path in (vocab_path, merges_path) if not path.exists()]
        if missing:
            raise TokenizerError(f"tokenizer: expected {' and '.join(missing)} in {source}; run `python -m export download`")
        vocab = json.loads(vocab_path.read_text(encoding="utf-8"))
        merges = [tuple(line.split()) for line in merges_path.read_text(encoding="utf-8").splitlines()[1:] if line.strip()]
        tokenizer = CLIPTokenizer(vocab=vocab, merges=merges).backend_tokenizer  # type: ignore[arg-type]  # pairs, as BPE wants
        for role, expected in (
            ("<|startoftext|>", tokens.begin),
            ("<|endoftext|>", tokens.end),
            ("id</w>", tokens.identity_token),
        ):
            if tokenizer.token_to_id(role) != expected:
                raise TokenizerError(
                    f"tokenizer: {vocab_path} gives '{role}' the id {tokenizer.token_to_id(role)}, but variant"
                    f" '{variant.name}' expects {expected}; use the checkpoint's own tokenizer"
                )
        tokenizer.save(str(destination / tokens.tokenizer))
