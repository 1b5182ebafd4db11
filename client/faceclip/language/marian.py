"""A translator of its own: an OPUS-MT network on ONNX Runtime, from a folder that `python -m export translator` wrote.

Sentence by sentence; the notation of prompts stays where it is. Greedy, or by beams as transformers' `generate` does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .notation import Group, Mark, Part, read
from .translator import TranslationError, Translator

RECORD = "translator.json"
_SPACE = "\u2581"
_SENTENCE = re.compile(r"[^。！？!?；;\n]+[。！？!?；;\n]*")
_LETTER = re.compile(r"[^\W\d_]")
_NEVER = np.float32(-1e9)
Array = NDArray[Any]
Step = Callable[[Array, Array], tuple[Array, Array]]
"""(token [beams, 1], past [layers, 2, beams, heads, time, head]) -> log-probabilities [beams, vocabulary], present."""


class Marian:
    """May be used by several threads. Raises ImportError without its packages, `TranslationError` where the folder is none."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        try:
            self._told: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._encoder, self._decoder = (
                onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
                for name in ("encoder", "decoder")
            )
        except Exception as error:  # noqa: BLE001 - the two packages raise of their own
            raise TranslationError(f"{folder}: expected what `python -m export translator` writes ({error})") from None
        self.language: str = self._told["language"]
        self._vocabulary: list[str] = self._told["vocabulary"]
        self._numbers = {piece: number for number, piece in enumerate(self._vocabulary) if piece}

    def __call__(self, prompt: str, language: str) -> tuple[str, Sequence[str]]:
        """The English of a prompt, with its notation, and what nobody knew of it."""
        if language != self.language:
            raise TranslationError(f"the translator of this folder is for '{self.language}', not for '{language}'")
        unknown: list[str] = []
        return self._sequence(read(prompt), unknown), tuple(dict.fromkeys(unknown))

    def _sequence(self, parts: Sequence[Part], unknown: list[str]) -> str:
        said: list[str] = []
        for part in parts:
            if isinstance(part, Mark):
                said.append(part.text)
            elif isinstance(part, Group):
                said.append(f"{part.opening}{self._sequence(part.parts, unknown)}{part.closing}")
            else:
                said += [self._sentence(each, unknown) for each in _SENTENCE.findall(part)]
        return " ".join(each for each in said if each)

    def _sentence(self, text: str, unknown: list[str]) -> str:
        if not _LETTER.search(text) or text.isascii():
            return text.strip()
        pieces: list[str] = self._tokenizer.encode(text.strip()).tokens
        unknown += [piece.strip(_SPACE) for piece in pieces if piece not in self._numbers]
        tokens = [self._numbers.get(piece, self._told["unknown"]) for piece in pieces]
        return self.spoken(self.generate([*tokens, self._told["end"]]))

    def spoken(self, tokens: Sequence[int]) -> str:
        """Numbers of the vocabulary as text."""
        return "".join(self._vocabulary[each] for each in tokens).replace(_SPACE, " ").strip()

    def generate(self, source: Sequence[int], beams: int = 0, longest: int = 0) -> list[int]:
        """The tokens of the translation, without start and end. `source`: with its end. `beams`, `longest`: 0: the network's own.

        Raises `TranslationError` for a longer sentence than the network reads.
        """
        told, beams, longest = self._told, beams or self._told["beams"], longest or self._told["longest"]
        if len(source) > told["longest"]:
            raise TranslationError(f"a sentence of {len(source)} pieces, at most {told['longest']} are read; part it")
        (memory,) = self._encoder.run(None, {"tokens": np.array([source], np.int64)})
        layers, _, _, heads, _, head = memory.shape

        def step(token: Array, past: Array) -> tuple[Array, Array]:
            logits, present = self._decoder.run(None, {"token": token, "past": past, "memory": memory})
            likely = _log_softmax(logits)
            likely[:, told["never"]] = _NEVER
            return likely, present

        empty = np.zeros((layers, 2, beams, heads, 0, head), np.float32)
        search = _greedy if beams == 1 else _beam_search
        return search(step, empty, told["start"], told["end"], longest)


@cache
def of_folder(folder: Path) -> Translator:
    """The translator of a folder, loaded once."""
    return Marian(folder)


def _greedy(step: Step, past: Array, start: int, end: int, longest: int) -> list[int]:
    said: list[int] = []
    token = start
    while len(said) < longest - 2:  # start and end count
        likely, past = step(np.array([[token]], np.int64), past)
        token = int(likely[0].argmax())
        if token == end:
            break
        said.append(token)
    return said


def _beam_search(step: Step, past: Array, start: int, end: int, longest: int) -> list[int]:
    """The most likely of several sentences by mean log-probability, their ends counted. Ends when no running one can become better."""
    beams = past.shape[2]
    running: list[list[int]] = [[] for _ in range(beams)]
    scores = np.array([0.0] + [float(_NEVER)] * (beams - 1), np.float32)
    ended: list[tuple[float, list[int]]] = []
    for length in range(1, longest):
        likely, past = step(np.array([[each[-1] if each else start] for each in running], np.int64), past)
        vocabulary = likely.shape[1]
        if length == longest - 1:  # what is last is an end, and costs nothing
            likely = np.where(np.arange(vocabulary) == end, np.float32(0), _NEVER)
        total = scores[:, None] + likely
        best = np.argsort(-total, axis=None, kind="stable")[: 2 * beams]
        rows: list[int] = []
        kept: list[Any] = []
        for rank, each in enumerate(best):
            row, token = divmod(int(each), vocabulary)
            if token != end:
                rows.append(row)
                kept.append(each)
            elif rank < beams:
                ended.append((float(total[row, token]) / length, running[row]))
        rows, kept = rows[:beams], kept[:beams]
        running = [[*running[row], int(each) % vocabulary] for row, each in zip(rows, kept, strict=True)]
        scores, past = total.ravel()[kept], past[:, :, rows]
        ended = sorted(ended, key=lambda found: -found[0])[:beams]
        if len(ended) == beams and float(scores[0]) / length <= ended[-1][0]:
            break
    return ended[0][1] if ended else running[0]


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
