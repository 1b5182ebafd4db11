"""Pictures of several people: who stands where, what each row is learnt from, and what counts of the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.learning.diffusion import JOINT, LATENT_SIDE, Batch, Lesson, around, draw, own, unet_stage
from training.networks import nano
from training.networks.conditioning import Conditioner, Faces
from training.networks.texts import read_tokenizer
from training.pictures.dataset import FRONTAL, PICTURES, Pictures
from training.pictures.details import details_of
from training.pictures.gatherings import ALONE, PAIR, THREE, Formation, Gatherings, build_gatherings, gathered
from training.recipe import Recipe
from training.run.work import TOKENIZER, Work
from training.world.people import sample_identity, sample_scene
from training.world.render import Standing, render, render_together

FORMATIONS = [PAIR, THREE, ALONE]


def test_a_portrait_is_a_gathering_of_one() -> None:
    person, scene = sample_identity(4), sample_scene("alone", 4)
    alone, together = render(person, scene, 64), render_together([Standing(person, scene)], 1.0, 64)
    assert np.array_equal(alone.image, together.image) and np.array_equal(alone.landmarks, together.landmarks[0])


def test_everybody_stands_in_their_own_part_and_looks_as_they_do_alone() -> None:
    scene = replace(sample_scene("together", 1, pose=0.0), light="soft", time="day", hat="none", x=0.0)
    people = [Standing(sample_identity(k), scene, float(k)) for k in range(3)]
    picture = render_together(people, 3.0, 64)
    assert picture.image.shape == (64, 192, 3) and picture.landmarks.shape == (3, 5, 2)
    for k, each in enumerate(people):
        alone = render(each.identity, scene, 64)
        assert np.allclose(picture.landmarks[k], alone.landmarks + np.array([64 * k, 0]), atol=1e-3)
        face = (slice(24, 40), slice(24, 40))
        assert np.array_equal(picture.image[:, 64 * k : 64 * (k + 1)][face], alone.image[face])


@pytest.mark.parametrize("place", ["beach", "library", "stage", "space"])
def test_a_place_has_no_seam_where_its_reflection_begins(place: str) -> None:
    scene = replace(sample_scene("seam", 2), place=place, light="soft", hat="none")
    picture = render_together([Standing(sample_identity(1), scene, 0.25)], 1.5, 64).image.astype(int)
    assert np.array_equal(picture[:6, 64:76], picture[:6, 63:51:-1])  # above the head


@pytest.mark.parametrize("formation", FORMATIONS)
def test_who_is_in_a_picture_never_changes_and_shares_the_place(formation: Formation) -> None:
    for picture in range(20):
        people = gathered(formation, picture, 50)
        assert people == gathered(formation, picture, 50)
        assert len({each.identity.number for each in people}) == len(formation.lefts)
        assert len({(each.scene.place, each.scene.time, each.scene.light, each.scene.detail) for each in people}) == 1


def test_half_of_the_pairs_are_dressed_alike() -> None:
    pairs = [gathered(PAIR, picture, 50) for picture in range(200)]
    dressed = [[(each.scene.garment, each.scene.garment_colour, each.scene.hat) for each in pair] for pair in pairs]
    assert 0.4 < np.mean([first == second for first, second in dressed]) < 0.6


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Gatherings:
    return build_gatherings(tmp_path_factory.mktemp("world"), PAIR, 3, 8, 32, processes=1)


def test_rows_are_people(pairs: Gatherings) -> None:
    assert len(pairs) == 6 and pairs.pictures.shape == (3, 32, 64, 3)
    for row in range(len(pairs)):
        standing = gathered(PAIR, row // 2, 8)[row % 2]
        assert (pairs.person(row), pairs.scene(row), pairs.left(row)) == (standing.identity, standing.scene, row % 2)
        assert [k // PICTURES for k in pairs.faces_of(row)] == [standing.identity.number] * PICTURES
    assert details_of(pairs, LATENT_SIDE).parts.shape == (6, LATENT_SIDE, LATENT_SIDE)


def test_drawn_once(tmp_path: Path) -> None:
    first = build_gatherings(tmp_path, ALONE, 2, 8, 32, processes=1)
    assert np.array_equal(first.pictures, build_gatherings(tmp_path, ALONE, 2, 8, 32, processes=1).pictures)
    assert len(list(tmp_path.iterdir())) == 1


class _Places:
    """Latents that say which row they are of."""

    def __init__(self, rows: int, width: int = 2 * LATENT_SIDE) -> None:
        self.rows, self.width = rows, width

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, rows: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(rows).float()[:, None, None, None].expand(-1, 8, LATENT_SIDE, self.width)


def test_a_batch_shows_each_row_its_own_face_and_place(pairs: Gatherings) -> None:
    faces = Faces(torch.zeros(8 * PICTURES, 4), torch.zeros(8 * PICTURES, 2, 4))
    lesson = Lesson(pairs, _Places(len(pairs)), faces, replace(JOINT, face=0.0, text=0.0, both=0.0), 40)  # type: ignore[arg-type]
    drawn = draw(lesson, np.random.default_rng(0))
    assert drawn.left == [int(row % 2) * LATENT_SIDE for row in drawn.rows]
    assert [k // PICTURES for k in drawn.index] == [pairs.person(int(row)).number for row in drawn.rows]
    assert drawn.latents[:, 0, 0, 0].tolist() == drawn.rows.tolist()


def test_lifelike_faces_are_those_of_the_same_person(pairs: Gatherings) -> None:
    drawn = 8 * PICTURES
    faces = Faces(torch.zeros(2 * drawn, 4), torch.zeros(2 * drawn, 2, 4), drawn=drawn)
    nothing_left_out = replace(JOINT, face=0.0, text=0.0, both=0.0)
    lesson = Lesson(pairs, _Places(len(pairs)), faces, nothing_left_out, 40, lifelike=1.0)  # type: ignore[arg-type]
    found = draw(lesson, np.random.default_rng(0))
    assert min(found.index) >= drawn
    assert [(k - drawn) // PICTURES for k in found.index] == [pairs.person(int(row)).number for row in found.rows]


def test_the_denoiser_learns_from_lessons_of_two_widths_in_turn(pairs: Gatherings) -> None:
    torch.manual_seed(0)
    face = nano.ARCHITECTURE.face
    faces = Faces(torch.randn(8 * PICTURES, face.classes), torch.randn(8 * PICTURES, face.patches, face.width))
    pictures = np.zeros((8 * PICTURES, 1, 1, 3), np.uint8)
    portraits = Pictures("train", pictures, pictures, series=FRONTAL)
    lessons = [
        Lesson(data, _Places(len(data), width), faces, JOINT, 2, details=details_of(data, LATENT_SIDE))  # type: ignore[arg-type]
        for data, width in ((pairs, 2 * LATENT_SIDE), (portraits, LATENT_SIDE))
    ]
    unet, seen = nano.make_unet(0), []
    conditioner = Conditioner(nano.make_encoder(0), nano.TOKENS, read_tokenizer(TOKENIZER))
    unet.register_forward_pre_hook(lambda _, shown: seen.append(tuple(shown[0].shape)))
    stage = unet_stage("together", unet, conditioner, lessons, 4, seed=0)
    assert all(torch.isfinite(term) for step in range(4) for term in stage.losses(step).values())
    assert seen == [(2, 8, LATENT_SIDE, 2 * LATENT_SIDE), (2, 8, LATENT_SIDE, LATENT_SIDE)] * 2


def test_what_is_served_is_of_the_last_trained_stage(tmp_path: Path) -> None:
    work = Work(tmp_path, Recipe())
    work.results.mkdir()
    assert work.last == "unet"
    (work.results / "together.pt").touch()
    assert work.last == "together"


def test_the_own_part_is_as_wide_as_high() -> None:
    values = torch.arange(3 * 2 * 6).view(2, 1, 3, 6)
    assert own(values, None) is values
    assert torch.equal(own(values, [0, 3]), torch.stack([values[0, :, :, :3], values[1, :, :, 3:]]))


def test_what_is_around_counts_little_and_less_the_farther() -> None:
    rows = np.arange(3)
    drawn = Batch(rows, torch.zeros(3, 1, 1, 1), ["a", "", ""], [-1, 5, -1], [True] * 3, [0, LATENT_SIDE, LATENT_SIDE])
    counts = around(3 * LATENT_SIDE, drawn)[:, 0, 0]
    for row, left in enumerate([0, LATENT_SIDE, LATENT_SIDE]):
        assert (counts[row, left : left + LATENT_SIDE] == 0).all()
    assert 0 < counts[0, LATENT_SIDE + 4] < counts[0, LATENT_SIDE] < 0.5 and counts[0, -1] < 1e-6
    assert torch.equal(counts[1, :LATENT_SIDE].flip(0), counts[1, 2 * LATENT_SIDE :])
    assert len(set(counts[2].tolist())) == 2, "where nothing was said, all of the rest counts alike"


def test_sizes_of_a_gathering_are_whole_cells() -> None:
    for formation in FORMATIONS:
        assert all((place * LATENT_SIDE).is_integer() for place in (formation.across, *formation.lefts))
