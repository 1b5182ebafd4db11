"""First step of the ensemble: checks the request, finds and aligns faces, tokenises."""

from __future__ import annotations

from functools import partial
from typing import Any

from faceclip_serving.faces import make_detector

from faceclip_serving import adapter
from faceclip_serving.preparing import prepare
from faceclip_serving.prompts import load_tokenizer


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        setup = adapter.setup(args)
        self._signature = setup.signature
        tokenizers = [load_tokenizer(setup.folder / tokens.tokenizer) for tokens in setup.variant.tokens]
        yunet = setup.folder / "face_detection_yunet.onnx"
        detect = make_detector(yunet if yunet.exists() else None)
        self._prepare = partial(prepare, setup.variant, tokenizers, detect, setup.contract)

    def execute(self, requests: list[Any]) -> list[Any]:
        return adapter.answer(requests, self._signature, self._prepare)
