"""Tokenizer files -> the `tokenizer.json` that the `prepare` model reads.

A checkpoint brings a whole `tokenizer.json`, which is taken as it is, or CLIP's `vocab.json` and `merges.txt`; small variants
bring the same files in this repository. transformers' CLIPTokenizer knows how CLIP's are read. `export onnx` writes the finished
files beside the graphs, so that a repository can be made where no checkpoint is.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer

from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.variants.variant import Tokens, Variant

from ..paths import ASSETS, CHECKPOINT
from .committed import own_folder

TOKENIZERS = "tokenizers"
"""Folder beside the precisions of an exported variant; `export onnx` also takes it as the name of a component."""


class TokenizerError(UserError):
    """Tokenizer files are missing or do not fit the variant."""


def write_tokenizers(variant: Variant, checkpoint: Path | None, destination: Path, components: Path | None = None) -> None:
    """Writes every tokenizer of the variant, from `tokenizer_sources`, into `destination`. Raises `TokenizerError`."""
    for tokens, source in zip(variant.tokens, tokenizer_sources(variant, checkpoint, components), strict=True):
        tokenizer = _exported(source, variant) if source.suffix == ".json" else _whole(source) or _clip(source)
        _check(tokenizer, tokens, source, variant)
        tokenizer.save(str(destination / tokens.tokenizer))


def tokenizer_sources(variant: Variant, checkpoint: Path | None, components: Path | None = None) -> list[Path]:
    """What each tokenizer of the variant is made of: the folder of its files, or the file that was exported to `components`.

    A checkpoint that is given comes first, then what the project brings, then the export.
    """
    if checkpoint is None and components is not None and not _brought(variant):
        return [components / TOKENIZERS / tokens.tokenizer for tokens in variant.tokens]
    return tokenizer_folders(variant, checkpoint)


def tokenizer_folders(variant: Variant, checkpoint: Path | None) -> list[Path]:
    """Where the files of each tokenizer of the variant lie."""
    root = ASSETS if variant.weights == "seeded" else checkpoint or own_folder(variant) or CHECKPOINT
    return [root / tokens.source for tokens in variant.tokens]


def _brought(variant: Variant) -> bool:
    """Whether the project has them here. The container has no weights/."""
    return variant.weights != "checkpoint" and all(folder.is_dir() for folder in tokenizer_folders(variant, None))


def _exported(path: Path, variant: Variant) -> Tokenizer:
    if not path.is_file():
        raise TokenizerError(
            f"tokenizer: expected {path}; make it with `python -m export onnx --variant {variant.name} --component {TOKENIZERS}"
            f"{' --checkpoint DIR' if variant.weights == 'checkpoint' else ''}`, or give the checkpoint here (--checkpoint DIR)"
        )
    return Tokenizer.from_file(str(path))


def _whole(source: Path) -> Tokenizer | None:
    path = source / "tokenizer.json"
    return Tokenizer.from_file(str(path)) if path.exists() else None


def _clip(source: Path) -> Tokenizer:
    from transformers import CLIPTokenizer

    vocab_path, merges_path = source / "vocab.json", source / "merges.txt"
    missing = [path.name for path in (vocab_path, merges_path) if not path.exists()]
    if missing:
        raise TokenizerError(
            f"tokenizer: expected tokenizer.json, or {' and '.join(missing)}, in {source}; run `python -m export download`"
        )
    vocab = json.loads(vocab_path.read_text(encoding="utf-8"))
    merges = [tuple(line.split()) for line in merges_path.read_text(encoding="utf-8").splitlines()[1:] if line.strip()]
    tokenizer: Tokenizer = CLIPTokenizer(vocab=vocab, merges=merges).backend_tokenizer  # type: ignore[arg-type]  # pairs, as BPE wants
    return tokenizer


def _check(tokenizer: Tokenizer, tokens: Tokens, source: Path, variant: Variant) -> None:
    """Raises `TokenizerError` where a token with a role has another id than the variant says."""
    roles = {
        tokens.begin: ("<|startoftext|>",),
        tokens.end: ("<|endoftext|>", "</s>"),
        tokens.identity_token: ("id</w>",),
    }
    for expected, spellings in roles.items():
        found = {spelling: tokenizer.token_to_id(spelling) for spelling in spellings}
        if expected is not None and expected not in found.values():
            raise TokenizerError(
                f"tokenizer: {source} gives {found}, but variant '{variant.name}' expects the id {expected}; use the"
                " checkpoint's own tokenizer"
            )
