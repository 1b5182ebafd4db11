"""The committed weights: small, complete, and obeying face and text on people that training never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from benchmarks.quality import WEIGHTS, maker
from benchmarks.quality_world import Cases
from training import nano
from training.autoencoder import decode_pictures, encode_all
from training.dataset import Pictures, build
from training.diffusion import Guidance
from training.judges import ATTRIBUTES, classify, recognise
from training.texts import read_tokenizer
from training.weights import JOINT, read_judges, read_vae

PEOPLE = 6
PROMPTS = {"beach": "A {}, wearing a red t-shirt, on a beach.", "library": "A {}, wearing a blue suit, in a library."}
FAST = Guidance(text=3.0, identity=3.0, steps=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return build(tmp_path_factory.mktemp("test"), "test", PEOPLE, 128, processes=1)


@pytest.fixture(scope="module")
def cases(data: Pictures) -> Cases:
    people = np.repeat(np.arange(PEOPLE), len(PROMPTS))
    prompts = [text.format(data.person(4 * p).noun) for p in range(PEOPLE) for text in PROMPTS.values()]
    return Cases(data, people, prompts, [], [[4 * int(p) + 3] for p in people])


@pytest.fixture(scope="module")
def generated(cases: Cases) -> NDArray[np.uint8]:
    return maker(WEIGHTS, JOINT)[0](cases, FAST)


def test_the_weights_fit_their_limit_and_are_half_precision() -> None:
    files = list(WEIGHTS.glob("*.safetensors"))
    assert {"face_clip_encoder.safetensors", "unet.safetensors", "vae.safetensors"} <= {file.name for file in files}
    assert sum(file.stat().st_size for file in files) <= 40_000_000
    from safetensors.torch import load_file

    for file in files:
        assert {value.dtype for value in load_file(file).values()} <= {torch.float16, torch.int64}


def test_the_tokenizer_fits_the_declared_ids() -> None:
    tokenizer = read_tokenizer(WEIGHTS / "tokenizer")
    tokens = nano.TOKENS
    assert tokenizer.token_to_id("id</w>") == tokens.identity_token
    assert (tokenizer.token_to_id("<|startoftext|>"), tokenizer.token_to_id("<|endoftext|>")) == (tokens.begin, tokens.end)
    assert tokenizer.get_vocab_size() == nano.VOCABULARY == tokens.end + 1
    assert tokenizer.encode(tokens.face_prefix, add_special_tokens=False).ids[3] == tokens.identity_token


def test_the_autoencoder_keeps_held_out_pictures(data: Pictures) -> None:
    vae = read_vae(WEIGHTS)
    latents = torch.from_numpy(encode_all(vae, data.pictures).astype(np.float32))
    assert 0.8 < float(latents.std()) < 1.25  # the scaling factor is one
    error = np.square(decode_pictures(vae, latents).astype(float) - data.pictures).mean()
    assert 10 * np.log10(255**2 / error) > 26


def test_generated_people_are_their_references(cases: Cases, data: Pictures, generated: NDArray[np.uint8]) -> None:
    recogniser, _ = read_judges(WEIGHTS)
    people = F.normalize(recognise(recogniser, data.pictures).reshape(PEOPLE, 4, -1).mean(1))
    cosine = (recognise(recogniser, generated) @ people.T).numpy()
    own = cosine[np.arange(len(cases.who)), cases.who]
    others = (cosine.sum(1) - own) / (PEOPLE - 1)
    assert (own - others).mean() > 0.15


def test_generated_places_are_the_prompts(generated: NDArray[np.uint8]) -> None:
    _, classifier = read_judges(WEIGHTS)
    found = classify(classifier, generated)["place"]
    wanted = [ATTRIBUTES["place"].index(place) for place in PROMPTS] * PEOPLE
    assert (found == wanted).mean() >= 0.75


def test_without_a_face_the_reference_has_no_effect(cases: Cases) -> None:
    two = Cases(cases.data, cases.who[:2], cases.prompts[:2], [], cases.references[:2])
    other = Cases(cases.data, cases.who[:2], cases.prompts[:2], [], [[0], [1]])
    make = maker(WEIGHTS, JOINT)[0]
    free = Guidance(text=3.0, identity=0.0, steps=4)
    assert np.abs(make(two, free).astype(int) - make(other, free)).max() <= 1
    assert np.abs(make(two, FAST).astype(int) - make(other, FAST)).mean() > 1


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"vae\.safetensors"):
        read_vae(tmp_path)
