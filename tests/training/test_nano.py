"""The committed weights: small, complete, and obeying face and text on people that training never saw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from benchmarks.quality.judges import Jury, read_jury
from benchmarks.quality.makers import trained
from benchmarks.quality.metrics import identity_scores
from benchmarks.quality.world import Cases, Shots, shoot
from export.checkpoint.committed import own_folder
from export.checkpoint.read import load_part
from export.networks.faceclip.encoder import FaceCLIPEncoder
from faceclip_serving.contract.variants.sdxl import NANO
from training.errors import TrainingError
from training.learning.autoencoder import decode_pictures, encode_all
from training.learning.drawing import Guidance, generate
from training.learning.identity import face_features
from training.learning.judges import classify
from training.networks import nano
from training.networks.conditioning import Faces
from training.networks.texts import read_tokenizer
from training.pictures.crops import encoder_view
from training.pictures.dataset import PICTURES, SPLITS, VIEW, scene_of
from training.run.weights import JOINT, available_peers, read_generator, read_vae
from training.world.people import sample_identity, sample_scene

WEIGHTS = own_folder(NANO)
assert WEIGHTS is not None
MISSING = JOINT not in available_peers(WEIGHTS)
needs_weights = pytest.mark.skipif(MISSING, reason=f"no trained weights in {WEIGHTS}: python -m training all, then weights")

PERSONS = [sample_identity(SPLITS["test"] + i) for i in range(5)]
SCENES = {"beach": "A {}, wearing a red t-shirt, on a beach.", "library": "A {}, wearing a blue suit, in a library."}
FAST = {"guidance_scale": 3.0, "num_inference_steps": 8, "scheduler": "DPMSolverMultistepScheduler"}

LARGEST_BYTES = 48_000_000
SMALLEST_VAE_PSNR_DB = 26.0
SMALLEST_IDENTITY_MARGIN = 0.25
"""Mean cosine with the own person less that with others."""
SMALLEST_PLACE_SHARE = 0.7
"""Of pictures whose place is the prompt's; by chance it would be 1/12."""


@pytest.fixture(scope="module")
def kept() -> Shots:
    """Three pictures of each person that the model is not shown."""
    return shoot([(person, scene_of(person.number, k)) for person in PERSONS for k in range(PICTURES - 1)])


@pytest.fixture(scope="module")
def cases() -> Cases:
    """Every person in every scene, from the picture that is left."""
    who = np.repeat(np.arange(len(PERSONS)), len(SCENES))
    scenes = tuple(replace(sample_scene("test", place), place=place) for _ in PERSONS for place in SCENES)
    prompts = tuple(text.format(person.noun) for person in PERSONS for text in SCENES.values())
    references = shoot([(person, scene_of(person.number, PICTURES - 1)) for person in PERSONS])
    return Cases(who, prompts, scenes, tuple((int(p),) for p in who), references, tuple(range(len(who))))


@pytest.fixture(scope="module")
def jury(kept: Shots) -> Jury:
    return read_jury(WEIGHTS, kept, len(PERSONS))


@pytest.fixture(scope="module")
def generated(cases: Cases) -> NDArray[np.uint8]:
    return trained(WEIGHTS, JOINT, FAST)(cases, {})


@needs_weights
def test_the_weights_fit_their_limit_and_are_half_precision() -> None:
    files = {file.name: file for file in WEIGHTS.glob("*.safetensors")}
    assert {"face_clip_encoder.safetensors", "unet.safetensors", "vae.safetensors"} <= files.keys()
    assert sum(file.stat().st_size for file in files.values()) <= LARGEST_BYTES
    for file in files.values():
        assert {value.dtype for value in load_file(file).values()} <= {torch.float16, torch.int64}


@needs_weights
def test_export_and_training_read_the_same_encoder() -> None:
    with torch.device("meta"):
        encoder = FaceCLIPEncoder(nano.ARCHITECTURE, nano.TOKENS)
    load_part(encoder, WEIGHTS, "face_clip_encoder")
    trained_encoder = read_generator(WEIGHTS)[1].encoder.state_dict()
    assert encoder.state_dict().keys() == trained_encoder.keys()
    assert all(torch.equal(value, trained_encoder[name]) for name, value in encoder.state_dict().items())
    left, right = (branch.face_encoder.state_dict() for branch in encoder.branches)
    assert all(torch.equal(value, right[name]) for name, value in left.items())  # so one run serves both branches


def test_the_tokenizer_fits_the_declared_ids() -> None:
    tokenizer, tokens = read_tokenizer(WEIGHTS / "tokenizer"), nano.TOKENS
    assert tokenizer.token_to_id("id</w>") == tokens.identity_token
    assert (tokenizer.token_to_id("<|startoftext|>"), tokenizer.token_to_id("<|endoftext|>")) == (tokens.begin, tokens.end)
    towers = nano.ARCHITECTURE.towers.values()
    assert {tower.vocabulary for tower in towers} == {tokenizer.get_vocab_size()} == {tokens.end + 1}
    assert tokenizer.encode(tokens.face_prefix, add_special_tokens=False).ids[3] == tokens.identity_token


@needs_weights
def test_the_autoencoder_keeps_held_out_pictures(kept: Shots) -> None:
    vae, pictures = read_vae(WEIGHTS), kept.pictures[::3]
    latents = torch.from_numpy(encode_all(vae, pictures).astype(np.float32))
    assert 0.8 < float(latents.std()) < 1.25  # the scaling factor is one
    error = np.square(decode_pictures(vae, latents).astype(float) - pictures).mean()
    assert 10 * np.log10(255**2 / error) > SMALLEST_VAE_PSNR_DB


@needs_weights
def test_generated_people_are_their_references(cases: Cases, jury: Jury, generated: NDArray[np.uint8]) -> None:
    own, others = identity_scores(jury.identities(generated), jury.people, cases.who)
    assert own.mean() - others.mean() > SMALLEST_IDENTITY_MARGIN


@needs_weights
def test_generated_places_are_the_prompts(cases: Cases, jury: Jury, generated: NDArray[np.uint8]) -> None:
    assert (classify(jury.classifier, generated)["place"] == cases.asked["place"]).mean() >= SMALLEST_PLACE_SHARE


@needs_weights
def test_the_face_acts_only_where_its_scale_is_above_zero(cases: Cases) -> None:
    unet, conditioner = read_generator(WEIGHTS)
    views = np.stack([encoder_view(crop, VIEW) for crop in cases.shots.crops[:2]])
    faces = Faces(*face_features(conditioner.encoder.branches[0].face_encoder, views))

    def latents(person: int, identity: float) -> torch.Tensor:
        guidance = Guidance(text=3.0, identity=identity, steps=3)
        return generate(unet, conditioner, cases.prompts[:1], faces, [[person]], guidance)

    assert torch.allclose(latents(0, 0.0), latents(1, 0.0), atol=1e-4)
    assert (latents(0, 3.0) - latents(1, 3.0)).abs().mean() > 0.02


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"vae\.safetensors"):
        read_vae(tmp_path)
    assert available_peers(tmp_path) == []
