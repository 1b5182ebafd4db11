"""The tokenizers of a variant beside its graphs, with `metadata.json`, complete or not at all: a repository needs no checkpoint then."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from faceclip_serving.contract.variants.variant import Variant

from ..checkpoint.digests import sha256
from ..checkpoint.tokenizers import TOKENIZERS, tokenizer_folders, write_tokenizers
from ..outputs import appearing
from . import sources
from .record import METADATA, describe_files, identity, kept


def export_tokenizers(variant: Variant, checkpoint: Path | None, destination: Path) -> dict[str, Any]:
    """Writes every tokenizer of the variant to the folder `destination` and returns its metadata.

    What is there already is kept if it was made from the same files. Raises `TokenizerError`.
    """
    files = [path for folder in tokenizer_folders(variant, checkpoint) for path in sorted(folder.glob("*")) if path.is_file()]
    states = [(path.parent.name, path.name, sha256(path)) for path in files]
    key = identity((variant.tokens, *states, sources.digest("export.checkpoint.tokenizers")), None)
    existing = kept(destination, key)
    if existing is not None:
        print(f"{TOKENIZERS}: kept, nothing they are made from has changed", file=sys.stderr)
        return existing
    with appearing(destination, METADATA) as folder:
        write_tokenizers(variant, checkpoint, folder)
        metadata = {"variant": variant.name, "identity": key, "files": describe_files(folder)}
        (folder / METADATA).write_text(json.dumps(metadata, indent=2) + "\n")
    return metadata
