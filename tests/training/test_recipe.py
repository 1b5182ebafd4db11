"""The training loop and the stages: resumable, seeded, and learning."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from faceclip_serving.contract.variants.sdxl import NANO
from training.errors import TrainingError
from training.learning.autoencoder import Latents, decode_pictures, encode_all, normalise_latents, start_as_thumbnail
from training.learning.identity import margin_loss
from training.learning.judges import ATTRIBUTES, faceless
from training.learning.loop import Losses, Stage, is_done, run
from training.networks import nano
from training.networks.texts import read_tokenizer
from training.networks.vocabulary import BEGIN, END, learn
from training.pictures.dataset import PICTURES, Pictures, build
from training.pictures.photographs import read_folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return build(tmp_path_factory.mktemp("world"), "train", 3, 128, processes=1)


def line_stage(steps: int) -> Stage:
    torch.manual_seed(3)
    line = nn.Linear(4, 1)

    def losses(step: int) -> Losses:
        x: Tensor = torch.randn(16, 4)
        return {"error": (line(x) - x.sum(1, keepdim=True)).square().mean()}

    return Stage("line", nn.ModuleDict({"line": line}), losses, steps, learning_rate=0.05, warm_up=2)


def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(tmp_path: Path) -> None:
    whole = run(line_stage(60), tmp_path / "whole")
    run(line_stage(60), tmp_path / "parts", stop_after_s=0.0)  # one step, then it leaves with a checkpoint
    assert torch.load(tmp_path / "parts" / "line.pt", weights_only=True)["step"] < 60
    parts = run(line_stage(60), tmp_path / "parts")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name])
    assert cv2.imread(str(tmp_path / "parts" / "line.png")) is not None


def test_its_time_is_that_of_all_its_parts_and_of_their_preparation(tmp_path: Path) -> None:
    began = time.monotonic() - 100
    run(line_stage(60), tmp_path, stop_after_s=0.0, began=began)
    first = torch.load(tmp_path / "line.pt", weights_only=True)["seconds"]
    run(line_stage(60), tmp_path, began=began)
    assert 100 < first < 200 < torch.load(tmp_path / "line.pt", weights_only=True)["seconds"]


def test_what_is_done_is_known_by_its_checkpoint(tmp_path: Path) -> None:
    assert not is_done("line", 3, tmp_path)
    run(line_stage(3), tmp_path)
    assert is_done("line", 3, tmp_path) and not is_done("line", 4, tmp_path)
    (tmp_path / "line.pt").write_bytes(b"nothing of the kind")
    assert not is_done("line", 3, tmp_path)


def test_a_checkpoint_of_other_networks_is_named(tmp_path: Path) -> None:
    run(line_stage(2), tmp_path)
    other = Stage("line", nn.ModuleDict({"line": nn.Linear(5, 1)}), line_stage(2).losses, 2, learning_rate=0.05)
    with pytest.raises(TrainingError, match=r"stage 'line': .*line\.pt is of other networks"):
        run(other, tmp_path)


def test_a_report_is_the_mean_of_its_steps_after_a_stop_too(tmp_path: Path) -> None:
    constant = nn.Linear(1, 1, bias=False)

    def losses(step: int) -> Losses:
        return {"error": 0 * constant.weight.sum() + 4.0}

    stage = Stage("constant", nn.ModuleDict({"line": constant}), losses, 10, learning_rate=0.1)
    run(stage, tmp_path, report_every=5, stop_at=3)
    run(stage, tmp_path, report_every=5)
    history = torch.load(tmp_path / "constant.pt", weights_only=True)["history"]
    assert [(row["step"], row["error"]) for row in history] == [(5, 4.0), (10, 4.0)]


def test_the_loop_learns_and_refuses_a_loss_that_is_not_a_number(tmp_path: Path) -> None:
    run(line_stage(200), tmp_path)
    history = torch.load(tmp_path / "line.pt", weights_only=True)["history"]
    assert history[-1]["error"] < 0.1 * history[0]["error"]
    broken = line_stage(3)
    stage = Stage(
        "broken", broken.modules, lambda step: {"error": next(broken.modules.parameters()).sum() * float("nan")}, 3, 0.1
    )
    with pytest.raises(TrainingError, match="broken: step 0"):
        run(stage, tmp_path)


def test_the_dataset_is_rendered_once_and_has_rows_by_person(data: Pictures) -> None:
    assert data.pictures.shape == (3 * PICTURES, 128, 128, 3) and data.crops.shape == (3 * PICTURES, 112, 112, 3)
    assert data.person(PICTURES).number == data.person(2 * PICTURES - 1).number != data.person(0).number


def test_a_fresh_vae_already_decodes_a_thumbnail(data: Pictures) -> None:
    vae = nano.make_vae(0).eval()
    start_as_thumbnail(vae)
    normalise_latents(vae, data.pictures)
    latents = torch.from_numpy(encode_all(vae, data.pictures).astype(np.float32))
    assert torch.allclose(latents.mean((0, 2, 3)), torch.zeros(NANO.latent_channels), atol=0.02)
    assert torch.allclose(latents.std((0, 2, 3)), torch.ones(NANO.latent_channels), atol=0.02)
    error = np.square(decode_pictures(vae, latents).astype(float) - data.pictures).mean()
    assert 10 * np.log10(255**2 / error) > 18


def test_latents_do_not_depend_on_what_else_is_asked_for(data: Pictures) -> None:
    vae, before = nano.make_vae(0).eval(), torch.get_num_threads()
    torch.set_num_threads(2)  # with one thread calls of any size round alike
    whole, parts = Latents(vae, data.pictures), Latents(vae, data.pictures)
    parts[np.array([0])], parts[np.array([1, 2])]
    rows = np.arange(5)
    equal = torch.equal(whole[rows], parts[rows])
    torch.set_num_threads(before)
    assert equal


def test_the_margin_makes_the_right_class_harder() -> None:
    centres = torch.eye(3)
    feature = torch.tensor([[1.0, 0.2, 0.0]])
    plain = nn.functional.cross_entropy(24.0 * nn.functional.normalize(feature) @ centres, torch.tensor([0]))
    assert float(margin_loss(feature, centres, torch.tensor([0]))) > float(plain)


def test_faceless_pictures_keep_their_colours_but_not_their_places() -> None:
    pictures = torch.rand(4, 3, 128, 128)
    spoilt = faceless(pictures)
    assert torch.allclose(spoilt[:2].sum((2, 3)), pictures[:2].sum((2, 3)), rtol=1e-3)
    assert not torch.allclose(spoilt, pictures)
    assert all(len(set(values)) == len(values) for values in ATTRIBUTES.values())


def test_the_vocabulary_makes_known_words_one_token(tmp_path: Path) -> None:
    learn(["Photo of a id person. A red hat, it's RED, 12"] * 3, 100, tmp_path)
    tokenizer = read_tokenizer(tmp_path)
    vocabulary = tokenizer.get_vocab()
    assert vocabulary[END] == len(vocabulary) - 1 and vocabulary[BEGIN] == len(vocabulary) - 2
    assert tokenizer.encode("id red person", add_special_tokens=False).tokens == ["id</w>", "red</w>", "person</w>"]
    pieces = ["it</w>", "'s</w>", "red</w>", ",</w>", "1</w>", "2</w>"]  # as CLIP splits
    assert tokenizer.encode("It's RED, 12", add_special_tokens=False).tokens == pieces


def test_the_vocabulary_is_the_same_each_time_and_knows_every_byte(tmp_path: Path) -> None:
    texts = ["a red hat and a blue hat", "ab ba ab ba", "Zoë's café"]
    for folder in ("once", "again"):
        learn(texts, 10, tmp_path / folder)
    for file in ("vocab.json", "merges.txt"):
        assert (tmp_path / "once" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    tokenizer = read_tokenizer(tmp_path / "once")
    assert tokenizer.get_vocab_size() == 512 + 10 + 2
    ids = tokenizer.encode("漢字 \t🙂", add_special_tokens=False).ids
    assert tokenizer.decode(ids) == "漢字 🙂"


def test_a_folder_of_photographs_is_read(tmp_path: Path, data: Pictures) -> None:
    person = tmp_path / "photos" / "someone"
    person.mkdir(parents=True)
    for k in range(2):
        cv2.imwrite(str(person / f"{k}.png"), data.pictures[k][:, :, ::-1])
        (person / f"{k}.txt").write_text(f"sentence {k}")
    read = read_folder(tmp_path / "photos", 128)
    assert read.identities == 1 and np.array_equal(read.pictures[0], data.pictures[0])
    assert read.caption(1, np.random.default_rng(0)) == "sentence 1"
    (person / "1.txt").unlink()
    with pytest.raises(TrainingError, match="has no caption"):
        read_folder(tmp_path / "photos", 128)


@pytest.mark.parametrize("landmarks", ["no JSON", "[[1, 2], [3, 4]]", "[[1, 2], [3]]", "{}", str([[5, 5]] * 5)])
def test_landmarks_that_are_no_five_points_are_named(tmp_path: Path, data: Pictures, landmarks: str) -> None:
    person = tmp_path / "photos" / "someone"
    person.mkdir(parents=True)
    for k in range(2):
        cv2.imwrite(str(person / f"{k}.png"), data.pictures[k][:, :, ::-1])
        (person / f"{k}.txt").write_text(f"sentence {k}")
    (person / "1.json").write_text(landmarks)
    with pytest.raises(TrainingError, match=r"1\.json must hold five \[x, y\] pairs"):
        read_folder(tmp_path / "photos", 128)
