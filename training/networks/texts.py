"""Prompts -> token ids with the committed BPE files, exactly as the served variant makes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from torch import Tensor

from faceclip_serving.contract.variants.variant import Tokens
from faceclip_serving.models.prompts import encode_prompt

from .. import device


def read_tokenizer(folder: Path) -> Tokenizer:
    """From `vocab.json` and `merges.txt`."""
    from transformers import CLIPTokenizer

    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    merges: Any = [tuple(line.split()) for line in lines]  # pairs, which BPE wants; the annotation says strings
    tokenizer: Tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges).backend_tokenizer
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def prompt_ids(tokenizer: Tokenizer, tokens: Tokens, prompts: Sequence[str], prefixed: Sequence[bool]) -> Tensor:
    """int64 [prompts, max_tokens]; `prefixed`: whether the face prefix comes first."""
    rows = [encode_prompt(tokenizer, tokens, text, prefix).ids for text, prefix in zip(prompts, prefixed, strict=True)]
    return device.tensor(np.stack(rows))
