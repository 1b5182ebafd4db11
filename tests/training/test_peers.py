"""Checkpoints of all stages -> the committed files -> every peer again; and training on real stages that stops and resumes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from training import nano
from training.conditioning import Conditioner, Faces, FaceTokens
from training.dataset import Pictures
from training.judges import AttributeClassifier, Recogniser
from training.recipe import TOKENIZER, Recipe, Work, with_steps
from training.resumability import check
from training.texts import read_tokenizer
from training.weights import (
    ADAPTER,
    JOINT,
    TEXT_ONLY,
    _heads,
    available_peers,
    read_alignment,
    read_generator,
    read_judges,
    write_weights,
)


def conditioner(seed: int, adapter: bool = False) -> Conditioner:
    torch.manual_seed(seed)
    tokens = FaceTokens(nano.ARCHITECTURE.face, nano.ARCHITECTURE.unet["cross_attention_dim"]) if adapter else None
    encoder = nano.make_encoder(seed)
    left, right = (branch.face_encoder for branch in encoder.branches)
    right.load_state_dict(left.state_dict())
    return Conditioner(encoder, nano.TOKENS, read_tokenizer(TOKENIZER), tokens)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A folder as a whole training leaves it, with fresh networks in place of trained ones."""
    made = Work(tmp_path_factory.mktemp("work"), Recipe())
    made.results.mkdir()
    pictures = np.random.default_rng(0).integers(0, 255, (50, 128, 128, 3)).astype(np.uint8)
    made.__dict__["data"] = Pictures("train", pictures, pictures[:, :112, :112])
    aligned = conditioner(1)
    stages: dict[str, dict[str, nn.Module]] = {
        "face": {"vit": aligned.encoder.branches[0].face_encoder},
        "vae": {"vae": nano.make_vae(0)},
        "align": {"conditioner": aligned, "heads": _heads()},
        "unet": {"unet": nano.make_unet(3), "conditioner": conditioner(1)},
        "adapter": {"unet": nano.make_unet(4), "conditioner": conditioner(1, adapter=True)},
        "text_only": {"unet": nano.make_unet(5), "conditioner": conditioner(1)},
        "recogniser": {"recogniser": Recogniser()},
        "attributes": {"classifier": AttributeClassifier()},
    }
    for stage, modules in stages.items():
        torch.save({"averages": nn.ModuleDict(modules).state_dict()}, made.results / f"{stage}.pt")
    return made


def test_every_peer_is_written_once_and_read_again(work: Work, tmp_path: Path) -> None:
    sizes = write_weights(work, tmp_path)
    assert {"unet", "adapter_unet", "text_only_unet", "face_clip_encoder", "adapter",
            "alignment_encoder", "alignment_heads", "vae", "recogniser", "classifier"} == {n.split(".")[0] for n in sizes}  # fmt: skip
    own_text = {name: size for name, size in sizes.items() if name.startswith("text_only")}
    assert sum(sizes.values()) - sum(own_text.values()) <= 40_000_000
    assert available_peers(tmp_path) == [JOINT, ADAPTER, TEXT_ONLY]
    shutil.copytree(TOKENIZER, tmp_path / "tokenizer")
    faces = Faces(torch.randn(2, 128), torch.randn(2, nano.ARCHITECTURE.face.patches, nano.ARCHITECTURE.face.width))
    rows = {}
    for peer, unet_seed in ((JOINT, 3), (ADAPTER, 4), (TEXT_ONLY, 5)):
        unet, read = read_generator(tmp_path, peer)
        torch.testing.assert_close(unet.conv_in.weight, nano.make_unet(unet_seed).conv_in.weight, rtol=1e-3, atol=1e-4)
        with torch.no_grad():
            rows[peer] = read(["a man"] * 2, faces, [0, 1], [True, True])[0]
    assert rows[ADAPTER].shape[1] == rows[JOINT].shape[1] + 8  # the adapter's tokens follow the text's
    assert torch.equal(rows[ADAPTER][0, :56], rows[ADAPTER][1, :56]) and not torch.equal(*rows[ADAPTER][:, 56:])
    assert not torch.equal(*rows[JOINT])
    read_alignment(tmp_path)
    read_judges(tmp_path)


def test_an_adapter_on_another_encoder_is_refused(work: Work, tmp_path: Path) -> None:
    other = Work(tmp_path / "work", Recipe())
    shutil.copytree(work.results, other.results)
    other.__dict__["data"] = work.data
    modules = nn.ModuleDict({"unet": nano.make_unet(4), "conditioner": conditioner(7, adapter=True)})
    torch.save({"averages": modules.state_dict()}, other.results / "adapter.pt")
    with pytest.raises(ValueError, match=r"'align' was trained again since; delete adapter\.pt"):
        write_weights(other, tmp_path / "weights")


def test_the_denoiser_resumes_to_the_weights_of_an_unbroken_run(tmp_path: Path) -> None:
    tiny = Recipe(
        identities=3, face_steps=1, vae_steps=1, align_steps=1, face_batch=4, vae_batch=2, align_batch=2, unet_batch=1
    )
    document = check(tmp_path, "unet", 2, tiny)
    assert (document["stopped_at"], document["equal"]) == (1, True) and document["tensors"] > 500
    # The trial can fail: weights of another seed are others.
    whole, again = (torch.load(tmp_path / part / "unet.pt", weights_only=True) for part in ("whole", "parts"))
    assert whole["step"] == again["step"] == 2
    start = nano.make_unet(tiny.seed + 2).state_dict()["conv_in.weight"]
    assert not torch.equal(whole["modules"]["unet.conv_in.weight"], start)


def test_steps_of_a_stage_are_set_by_its_name() -> None:
    recipe = Recipe()
    assert with_steps(recipe, "unet", 5).unet_steps == 5 and with_steps(recipe, "adapter", 5).peer_steps == 5
    assert with_steps(recipe, "attributes", 5).attribute_steps == 5
