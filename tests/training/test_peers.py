"""Checkpoints of all stages -> the committed files -> every peer again; and training on real stages that stops and resumes."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor, nn

import training.run.work
from export.checkpoint.lora import parse_lora
from export.checkpoint.tensor_files import read_tensors
from export.networks.components import build
from export.networks.faceclip.face_vit import FaceTransformer
from faceclip_serving.contract.names import DENOISER
from faceclip_serving.contract.schedules import EPSILON_SCHEDULERS
from faceclip_serving.contract.variants.sdxl import NANO
from training import device
from training.errors import TrainingError
from training.learning.autoencoder import Latents
from training.learning.diffusion import predict
from training.learning.drawing import Guidance, generate
from training.learning.few_steps import LowRank
from training.learning.identity import face_features
from training.learning.judges import AttributeClassifier, HatColours, Recogniser
from training.learning.natural import PORTRAITS, Natural
from training.networks import nano
from training.networks.adapter import ADAPTER_TOKENS, FaceTokens, decouple
from training.networks.conditioning import Conditioner, Faces
from training.networks.texts import read_tokenizer
from training.pictures.dataset import FRONTAL, Pictures
from training.pictures.gatherings import Formation, Gatherings
from training.recipe import STAGES, Recipe, with_steps
from training.resumability import check
from training.run.adopt import adopt
from training.run.stages import make_stage, train
from training.run.weights import (
    ADAPTER,
    FEW_STEPS,
    JOINT,
    TEXT_ONLY,
    available_peers,
    half,
    read_alignment,
    read_generator,
    read_hat_judge,
    read_judges,
    write_weights,
)
from training.run.work import TOKENIZER, Work, make_critic, make_heads


def conditioner(seed: int, adapter: bool = False) -> Conditioner:
    torch.manual_seed(seed)
    tokens = FaceTokens(nano.ARCHITECTURE.face, nano.ARCHITECTURE.unet["cross_attention_dim"]) if adapter else None
    encoder = nano.make_encoder(seed)
    left, right = (branch.face_encoder for branch in encoder.branches)
    right.load_state_dict(left.state_dict())
    return Conditioner(encoder, nano.TOKENS, read_tokenizer(TOKENIZER), tokens)


def decoupled(seed: int) -> UNet2DConditionModel:
    """The denoiser of that seed with attention to a face that has learnt something."""
    unet = nano.make_unet(seed)
    torch.manual_seed(seed + 1)
    for parameter in decouple(unet).parameters():
        parameter.data.normal_(0, 0.1)
    return unet


def low_rank(seed: int) -> LowRank:
    """Something that is added to a denoiser."""
    torch.manual_seed(seed)
    added = LowRank(nano.make_unet(0))
    for parameter in added.parameters():
        parameter.data.normal_(0, 0.1)
    return added


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A folder as a whole training leaves it, with fresh networks in place of trained ones."""
    made = Work(tmp_path_factory.mktemp("work"), Recipe())
    made.results.mkdir()
    pictures = np.random.default_rng(0).integers(0, 255, (50, 128, 128, 3)).astype(np.uint8)
    made.__dict__["data"] = made.__dict__["_portraits"] = Pictures("train", pictures, pictures[:, :112, :112])
    aligned = conditioner(1)
    stages: dict[str, dict[str, nn.Module]] = {
        "face": {"vit": aligned.encoder.branches[0].face_encoder},
        "vae": {"vae": nano.make_vae(0)},
        "decoder": {"decoder": nano.make_vae(0).decoder},
        "critic": {"critic": make_critic(2)},
        "base": {"unet": nano.make_unet(2), "conditioner": conditioner(1, adapter=True)},
        "align": {"conditioner": aligned, "heads": make_heads(0)},
        "unet": {"unet": nano.make_unet(3), "conditioner": conditioner(1)},
        "natural": {"vit": conditioner(8).encoder.branches[0].face_encoder},
        "together": {"unet": nano.make_unet(3), "conditioner": conditioner(1)},
        "few_steps": {"added": low_rank(6), "target": low_rank(7)},
        "adapter": {"unet": decoupled(5), "conditioner": conditioner(1, adapter=True)},
        "text_only": {"unet": nano.make_unet(5), "conditioner": conditioner(1)},
        "recogniser": {"recogniser": Recogniser()},
        "attributes": {"classifier": AttributeClassifier()},
        "hats": {"hat_colours": HatColours()},
    }
    for stage, modules in stages.items():
        torch.save({"averages": nn.ModuleDict(modules).state_dict()}, made.results / f"{stage}.pt")
    return made


@pytest.fixture(scope="module")
def written(work: Work, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of that, and the tokenizer."""
    folder = tmp_path_factory.mktemp("weights")
    sizes = write_weights(work, folder)
    assert sizes == {file.name: file.stat().st_size for file in folder.iterdir()}
    shutil.copytree(TOKENIZER, folder / "tokenizer")
    return folder


@pytest.mark.proof
def test_every_peer_is_written_once_and_read_again(written: Path) -> None:
    sizes = {file.name: file.stat().st_size for file in written.glob("*.safetensors")}
    assert {"unet", "text_only_unet", "face_clip_encoder", "adapter", "alignment_encoder", "alignment_heads", "vae",
            "recogniser", "classifier", "hat_colours", "few_steps", "face_statistics"} == {n.split(".")[0] for n in sizes}  # fmt: skip
    assert sum(sizes.values()) <= 48_000_000
    assert available_peers(written) == [JOINT, FEW_STEPS, ADAPTER, TEXT_ONLY]
    faces = Faces(torch.randn(2, 128), torch.randn(2, nano.ARCHITECTURE.face.patches, nano.ARCHITECTURE.face.width))
    rows = {}
    for peer, unet_seed in ((JOINT, 3), (ADAPTER, 5), (TEXT_ONLY, 5)):
        unet, read = read_generator(written, peer)
        torch.testing.assert_close(unet.conv_in.weight, nano.make_unet(unet_seed).conv_in.weight, rtol=1e-3, atol=1e-4)
        with torch.no_grad():
            rows[peer] = read(["a man"] * 2, faces, [0, 1], [True, True])[0]
    assert rows[ADAPTER].shape[1] == rows[JOINT].shape[1] + 8  # the adapter's tokens follow the text's
    assert torch.equal(rows[ADAPTER][0, :56], rows[ADAPTER][1, :56]) and not torch.equal(*rows[ADAPTER][:, 56:])
    assert not torch.equal(*rows[JOINT])
    read_alignment(written)
    read_judges(written)
    read_hat_judge(written)


def test_the_export_fuses_what_draws_in_few_steps_as_the_training_adds_it(written: Path) -> None:
    """By diffusers' names and peft's arithmetic."""
    joint = read_generator(written, JOINT)[0]
    plain, wanted = joint.state_dict(), read_generator(written, FEW_STEPS)[0].state_dict()
    assert all(torch.allclose(wanted[name], value, atol=1e-3) for name, value in low_rank(6).weights(joint).items())
    lora = parse_lora(f"{written / 'few_steps.safetensors'}:1")
    found = build(NANO, DENOISER, written, [lora]).unet.state_dict()
    assert all(torch.allclose(found[name], value, atol=1e-5) for name, value in wanted.items())
    changed = {name for name, value in plain.items() if not torch.allclose(found[name], value, atol=1e-3)}
    assert changed == {f"{layer}.weight" for layer in low_rank(6).layers}


def test_natural_faces_are_read_by_what_is_served_and_the_peers_encoder_stays(written: Path) -> None:
    found = {name: read_tensors(written / f"{name}.safetensors") for name in ("face_clip_encoder", "alignment_encoder")}
    name = "face_encoder.patch_embed.proj.weight"
    seeds = {"face_clip_encoder": 8, "alignment_encoder": 1}
    for file, seed in seeds.items():
        wanted = conditioner(seed).encoder.branches[0].face_encoder.patch_embed.proj.weight.half()
        assert all(torch.equal(found[file][f"{tower}.{name}"], wanted) for tower in nano.ARCHITECTURE.towers)


def test_adopted_weights_are_those_that_were_written_and_a_stage_goes_on_from_them(
    work: Work, written: Path, tmp_path: Path
) -> None:
    other = Work(tmp_path / "work", Recipe())
    stages = adopt(other, written)
    assert set(stages) == {"face", "vae", "align", "unet", "natural", "recogniser", "attributes", "hats"}
    for stage, prefix in (("face", "vit"), ("natural", "vit"), ("unet", "unet"), ("align", "conditioner"), ("align", "heads")):
        wanted, found = work.averaged(stage, prefix), other.averaged(stage, prefix)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], half({name: value})[name].to(value.dtype)) for name, value in wanted.items())
    with pytest.raises(TrainingError, match=r"expected a folder without checkpoints, .* has face, vae"):
        adopt(other, written)
    other.__dict__["data"] = work.data
    with pytest.raises(TrainingError, match=r"recogniser\.pt was adopted, and is done; to train it anew, delete it"):
        train(other, "recogniser")


@pytest.mark.parametrize(("unet", "encoder", "cause"), [(5, 7, "align"), (4, 1, "text_only")])
def test_an_adapter_on_another_encoder_or_denoiser_is_refused(
    work: Work, tmp_path: Path, unet: int, encoder: int, cause: str
) -> None:
    other = Work(tmp_path / "work", Recipe())
    shutil.copytree(work.results, other.results)
    other.__dict__["data"] = work.data
    modules = nn.ModuleDict({"unet": decoupled(unet), "conditioner": conditioner(encoder, adapter=True)})
    torch.save({"averages": modules.state_dict()}, other.results / "adapter.pt")
    with pytest.raises(TrainingError, match=rf"'{cause}' was trained again since; delete adapter\.pt"):
        write_weights(other, tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


@torch.no_grad()
def test_the_adapter_adds_attention_to_a_denoiser_that_reads_text_as_before() -> None:
    width = nano.ARCHITECTURE.unet["cross_attention_dim"]
    torch.manual_seed(0)
    noisy, text, face = torch.randn(2, 8, 16, 16), torch.randn(2, 56, width), torch.randn(2, ADAPTER_TOKENS, width)
    pooled, time = torch.randn(2, list(nano.ARCHITECTURE.towers.values())[-1].width), torch.full((2,), 500)
    unet = nano.make_unet(1)
    alone = predict(unet, noisy, time, text, pooled)
    added = decouple(unet)
    beside = predict(unet, noisy, time, torch.cat([text, face], 1), pooled)
    for attention in added.values():
        attention.to_v_ip[0].weight.zero_()
    deaf = predict(unet, noisy, time, torch.cat([text, face], 1), pooled)
    assert torch.equal(deaf, alone) and not torch.allclose(beside, alone, atol=1e-3)
    assert {n for n, p in unet.named_parameters() if p.requires_grad} == {n for n, _ in unet.named_parameters() if "_ip." in n}


@pytest.mark.proof
def test_the_denoiser_resumes_to_the_weights_of_an_unbroken_run(tmp_path: Path) -> None:
    tiny = Recipe(
        identities=3,
        frontal_identities=3,
        face_steps=1,
        vae_steps=1,
        align_steps=1,
        natural_steps=1,
        face_batch=4,
        vae_batch=2,
        align_batch=2,
        natural_batch=4,
        unet_batch=2,
    )
    document = check(tmp_path, "unet", 2, tiny)
    assert (document["stopped_at"], document["equal"]) == (1, True) and document["tensors"] > 500
    # The trial can fail: weights of another seed are others.
    whole, again = (torch.load(tmp_path / part / "unet.pt", weights_only=True) for part in ("whole", "parts"))
    assert whole["step"] == again["step"] == 2
    start = nano.make_unet(tiny.seed + 2).state_dict()["conv_in.weight"]
    assert not torch.equal(whole["modules"]["unet.conv_in.weight"], start)


@pytest.mark.proof
@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
@pytest.mark.parametrize("stage", STAGES)
def test_every_tensor_of_a_training_step_is_on_the_default_device(
    work: Work, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On `meta`, which refuses tensors of a CPU beside its own as a GPU does."""
    sizes = {name: 4 for name in vars(Recipe()) if name.endswith("_batch")}
    small = Work(work.folder, Recipe(**sizes))
    known = Latents(nano.make_vae(0), work.data.pictures)
    known._known.update({row: np.zeros((8, 16, 16), np.float16) for row in range(len(known))})
    monkeypatch.setattr(training.run.work, "normalise_latents", lambda vae, pictures: None)
    monkeypatch.setattr(device, "autocast", nullcontext)
    torch.set_default_device("meta")
    try:
        face = nano.ARCHITECTURE.face
        faces = Faces(torch.empty(len(known), face.classes), torch.empty(len(known), face.patches, face.width))
        natural = Natural(work.data.crops[:12], work.data.crops[:48].reshape(12, PORTRAITS, *work.data.crops.shape[1:]))
        both = Faces(torch.cat([faces.classes] * 2), torch.cat([faces.patches] * 2), drawn=len(known))
        small.__dict__.update(data=work.data, latents=known, faces=faces, natural=natural)
        small.__dict__.update(frontal=(replace(work.data, series=FRONTAL), known, both))
        small.__dict__.update(gatherings=lambda formation, share: _gathered(formation))
        made = make_stage(small, stage)
        losses = made.losses(0)
        torch.stack(list(losses.values())).sum().backward()
    finally:
        torch.set_default_device("cpu")
    gradients = {p.grad.device.type for p in made.modules.parameters() if p.grad is not None}
    assert {loss.device.type for loss in losses.values()} | gradients == {"meta"}


def test_nobody_is_what_the_loaded_face_encoder_makes_of_no_face() -> None:
    other, loaded = conditioner(8), conditioner(1)
    assert not torch.equal(loaded.get_buffer("zero_class"), other.get_buffer("zero_class"))
    loaded.load_state_dict(other.state_dict())
    for name in ("zero_class", "zero_patch"):
        assert torch.equal(loaded.get_buffer(name), other.get_buffer(name))


def test_of_photographs_the_denoiser_is_told_what_they_show(work: Work, tmp_path: Path) -> None:
    face, known = nano.ARCHITECTURE.face, Latents(nano.make_vae(0), work.data.pictures)
    known._known.update({row: np.zeros((8, 16, 16), np.float16) for row in range(len(known))})
    made = Work(tmp_path, Recipe(unet_batch=2), photographs=tmp_path)
    shutil.copytree(work.results, made.results)
    (made.results / "natural.pt").unlink()
    faces = Faces(torch.zeros(len(known), face.classes), torch.zeros(len(known), face.patches, face.width))
    made.__dict__.update(data=replace(work.data, captions=("a man",) * len(known)), latents=known, faces=faces)
    assert set(make_stage(made, "unet").losses(0)) == {"velocity", "critic"}


def test_faces_are_the_same_whatever_was_drawn_before_and_are_read_once_by_each_encoder(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shots = np.random.default_rng(1).integers(0, 255, (2, PORTRAITS, 112, 112, 3)).astype(np.uint8)

    def begun(folder: Path) -> Work:
        made = Work(folder, Recipe(identities=50, frontal_identities=50))
        made.__dict__.update(data=work.data, _portraits=work.data, natural=Natural(shots[:, 0], shots))
        return made

    found: list[Faces] = []
    for name in ("a", "b"):
        shutil.copytree(work.results, tmp_path / name / "checkpoints")
        torch.manual_seed(len(found))
        found.append(begun(tmp_path / name).frontal[2])
        assert found[-1].drawn == 50 and len(found[-1].classes) == 50 + 2 * PORTRAITS
    assert torch.equal(found[0].classes, found[1].classes) and torch.equal(found[0].patches, found[1].patches)

    read: list[int] = []

    def features(vit: FaceTransformer, crops: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        read.append(len(crops))
        return face_features(vit, crops)

    monkeypatch.setattr(training.run.work, "face_features", features)
    assert torch.equal(begun(tmp_path / "a").frontal[2].patches, found[0].patches) and not read
    shutil.copy(work.results / "face.pt", tmp_path / "a" / "checkpoints" / "natural.pt")  # trained anew
    assert not torch.equal(begun(tmp_path / "a").frontal[2].patches, found[0].patches) and read == [50 + 2 * PORTRAITS]


def _gathered(formation: Formation) -> tuple[Gatherings, Latents]:
    data = Gatherings(formation, np.zeros((8, 1, 1, 3), np.uint8), 12)
    latents = Latents(nano.make_vae(0), data.pictures, data.people)
    latents._known.update({row: np.zeros((8, 16, round(16 * formation.across)), np.float16) for row in range(8)})
    return data, latents


@pytest.fixture(scope="module")
def on_meta() -> tuple[UNet2DConditionModel, Conditioner, Faces]:
    tokenizer, face = read_tokenizer(TOKENIZER), nano.ARCHITECTURE.face
    with torch.device("meta"):
        faces = Faces(torch.empty(3, face.classes), torch.empty(3, face.patches, face.width))
        return nano.make_unet(0), Conditioner(nano.make_encoder(0), nano.TOKENS, tokenizer), faces


@pytest.mark.proof
@pytest.mark.parametrize("scheduler", sorted(EPSILON_SCHEDULERS))
def test_pictures_are_drawn_on_the_default_device(
    on_meta: tuple[UNet2DConditionModel, Conditioner, Faces], scheduler: str
) -> None:
    """On `meta`, as above."""
    unet, conditioner, faces = on_meta
    guidance = Guidance(4.0, 2.0, steps=3, scheduler=scheduler)
    torch.set_default_device("meta")
    try:
        made = generate(unet, conditioner, ["a man", "a woman"], faces, [[0], [1, 2]], guidance)
    finally:
        torch.set_default_device("cpu")
    assert made.device.type == "meta" and made.shape == (2, 8, 16, 16)


def test_steps_of_a_stage_are_set_by_its_name() -> None:
    whole = Recipe()
    assert with_steps(whole, "unet", 5).unet_steps == 5 and with_steps(whole, "adapter", 5).adapter_steps == 5
    assert with_steps(whole, "attributes", 5).attribute_steps == 5 and with_steps(whole, "few_steps", 5).few_steps == 5
