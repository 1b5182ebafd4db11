"""A byte-level BPE in CLIP's file format (vocab.json and merges.txt), learnt from captions until every known word is one token.

Ids: the 256 byte characters, the same at a word's end, one per merge, then begin and end (the end token has the largest id, which
is how the text tower finds it). Text is lower-cased and split as CLIP does; runtime tokenising is the server's part.

The committed files in `weights/nano/tokenizer` are older than the use of `tokenizers`' trainer, and are loaded as they are: weights
depend on their ids. A tokenizer that is learnt today has the same whole words, and other pieces on the way to them: of pairs that are
equally frequent the trainer takes the one of smaller ids first, where the committed files go by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.trainers import BpeTrainer

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
_WORDS = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")


def learn(texts: Iterable[str], merges: int, folder: Path) -> None:
    """Writes `vocab.json` and `merges.txt` of at most `merges` merges, most frequent pair first."""
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = Lowercase()
    words = Split(_WORDS, "removed", invert=True)
    tokenizer.pre_tokenizer = Sequence([words, ByteLevel(add_prefix_space=False, use_regex=False)])
    characters = sorted(ByteLevel.alphabet())
    alphabet = [*characters, *(character + _WORD_END for character in characters)]
    # Special to the trainer alone, which gives them the first ids, in this order: the same in every process.
    trainer = BpeTrainer(
        vocab_size=len(alphabet) + merges, special_tokens=alphabet, end_of_word_suffix=_WORD_END, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = model["vocab"] | {token: len(model["vocab"]) + i for i, token in enumerate((BEGIN, END))}
    folder.mkdir(parents=True, exist_ok=True)
    BPE(vocabulary, [tuple(pair) for pair in model["merges"]]).save(str(folder))
