"""How SentencePiece parts a text, read from its model file and written as a `tokenizers` file, so that no reader of such files is needed.

A `.spm` file is a protobuf: pieces with scores, and how a text is made plain before. Its control pieces, such as `</s>`, are left out: a
text never has them. Chinese and Latin text is parted as SentencePiece parts it; some marks of other scripts may stand apart.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from .graphs import TranslatorError

_SPACE = "\u2581"
_NORMAL, _USER_DEFINED = 1, 4
_UNIGRAM = 1
UNKNOWN = "<unk>"


def tokenizer_of(model: bytes) -> Tokenizer:
    """The tokenizer of a SentencePiece model. Raises `TranslatorError` where it is none of unigrams."""
    pieces: list[tuple[str, float]] = [(UNKNOWN, 0.0)]
    kind, charsmap, spaces_first = _UNIGRAM, b"", True
    try:
        for field, value in _fields(model):
            if field == 1 and isinstance(value, bytes):
                told = dict(_fields(value))
                if told.get(3, _NORMAL) in (_NORMAL, _USER_DEFINED):
                    pieces.append((_bytes(told[1]).decode(), struct.unpack("<f", _bytes(told.get(2, bytes(4))))[0]))
            elif field == 2 and isinstance(value, bytes):
                kind = int(dict(_fields(value)).get(3, _UNIGRAM))
            elif field == 3 and isinstance(value, bytes):
                told = dict(_fields(value))
                charsmap, spaces_first = _bytes(told.get(2, b"")), bool(told.get(3, 1))
    except (KeyError, ValueError, IndexError, TypeError, struct.error) as error:
        raise TranslatorError(f"source.spm: expected a SentencePiece model, got another file ({error!r})") from None
    if kind != _UNIGRAM or len(pieces) == 1:
        raise TranslatorError(f"source.spm: expected a SentencePiece model of unigrams (type {_UNIGRAM}), got type {kind}")
    made = Tokenizer(models.Unigram(pieces, 0, False))
    plain = [normalizers.Precompiled(charsmap)] if charsmap else []
    made.normalizer = normalizers.Sequence([*plain, normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, "always" if spaces_first else "never", split=False)
    return made


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a protobuf message; numbers of 4 or 8 bytes as bytes."""
    at = 0
    while at < len(message):
        tag, at = _number(message, at)
        wire = tag & 7
        if wire == 0:
            value, at = _number(message, at)
            yield tag >> 3, value
            continue
        if wire == 2:
            length, at = _number(message, at)
        else:
            length = {1: 8, 5: 4}[wire]
        if at + length > len(message):
            raise ValueError("it ends within a field")
        yield tag >> 3, message[at : at + length]
        at += length


def _number(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number without end")


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("expected bytes, got a number")
    return value
