"""The columns of the quality table on inputs whose answer is known."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks.measure.chart import curve, save_figure
from benchmarks.measure.drawing import sheet
from benchmarks.measure.pictures import MAX_PSNR_DB, picture_psnr_db
from benchmarks.quality import command as quality
from benchmarks.quality import metrics
from benchmarks.quality import sweeps as quality_sweeps
from benchmarks.quality.evaluation import headline, smallest_psnr_db
from benchmarks.quality.judges import Jury
from benchmarks.quality.makers import Maker, Settings, cpu_placement, guidance_of, request_of
from benchmarks.quality.report import write_page
from benchmarks.quality.sweeps import NAMES, SWEEPS, mean_and_error, spread
from benchmarks.quality.world import Cases, World, make_world
from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.request import parse_request
from faceclip_serving.contract.variants.sdxl import NANO
from training.learning.drawing import Guidance
from training.learning.judges import ATTRIBUTES, JUDGED
from training.run.weights import ADAPTER, JOINT, TEXT_ONLY
from training.world.captions import describe
from training.world.people import sample_identity


def test_identity_scores_separate_own_and_other_people() -> None:
    people = np.eye(3, dtype=np.float32)
    generated = np.array([[2, 0, 0], [0, 3, 0], [0, 1, 1]], np.float32)
    same, other = metrics.identity_scores(generated, people, np.array([0, 1, 2]))
    assert np.allclose(same, [1, 1, 2**-0.5]) and len(other) == 6
    # The third picture is as near to person 1 as to its own, and nearer to both than the others are to anybody else.
    assert metrics.verification_auc(same, other) == pytest.approx((1 + 1 + 5.5 / 6) / 3)


def test_the_error_of_an_auc_is_that_of_hanley_and_mcneil() -> None:
    # Their worked example: an area of 0.893 from 51 and 58 cases has a standard error of 0.032.
    assert metrics.auc_error(0.893, 51, 58) == pytest.approx(0.032, abs=1e-3)
    assert metrics.auc_error(1.0, 10, 20) == 0.0


def test_identity_is_kept_within_the_errors_of_the_reference() -> None:
    reference = {"id_similarity": 0.4, "id_similarity_error": 0.02, "verification_auc": 0.9, "verification_auc_error": 0.03}
    assert quality_sweeps.identity_kept({"id_similarity": 0.39, "verification_auc": 0.88}, reference)
    assert quality_sweeps.identity_kept({"id_similarity": 0.6, "verification_auc": 1.0}, reference)
    assert not quality_sweeps.identity_kept({"id_similarity": 0.37, "verification_auc": 0.95}, reference)
    assert not quality_sweeps.identity_kept({"id_similarity": 0.45, "verification_auc": 0.86}, reference)


def test_text_accuracy_ignores_what_was_not_asked() -> None:
    found = {"hat": np.array([1, 2, 3]), "time": np.array([0, 0, 0])}
    asked = {"hat": np.array([1, 2, 0]), "time": np.array([-1, -1, 1])}
    shares = metrics.text_accuracy(found, asked)
    assert shares["hat"] == pytest.approx(2 / 3) and shares["time"] == 0.0 and shares["mean"] == pytest.approx(1 / 3)


def test_the_mean_is_of_what_it_is_told() -> None:
    found, asked = (
        {"hat": np.array([1, 2]), "hat_colour": np.array([0, 0])},
        {"hat": np.array([1, 1]), "hat_colour": np.array([3, -1])},
    )
    shares = metrics.text_accuracy(found, asked, ("hat",))
    assert shares == {"hat": 0.5, "hat_colour": 0.0, "mean": 0.5}
    assert metrics.text_accuracy(found, asked)["mean"] == 0.25


def test_copied_geometry_is_one_at_the_reference_and_minus_one_at_the_person() -> None:
    people, references = np.float32([[1, 0, 0], [0, 2, 0]]), np.float32([[0.6, 0.8, 0], [0, 1, 1]])
    who = np.array([0, 1])
    assert metrics.copy_geo(references, references, people, who) == pytest.approx(1, abs=1e-3)
    assert metrics.copy_geo(people, references, people, who) == pytest.approx(-1, abs=1e-3)
    between = metrics.unit(people) + metrics.unit(references)
    assert metrics.copy_geo(between, references, people, who) == pytest.approx(0, abs=1e-3)


def test_copying_the_reference_is_counted_only_where_it_differs_from_the_prompt() -> None:
    found, asked, reference = np.array([5, 5, 1, 7]), np.array([1, 5, 1, 1]), np.array([5, 5, 2, 5])
    assert metrics.copy_paste_rate(found, asked, reference) == pytest.approx(1 / 3)
    assert metrics.copy_paste_rate(asked, asked, asked) == 0.0


def test_kernel_distance_tells_distributions_apart() -> None:
    r = np.random.default_rng(0)
    a, b, shifted = (r.normal(size=(300, 16)).astype(np.float32) + shift for shift in (0, 0, 1))
    assert abs(metrics.kernel_distance(a, b)) < 0.05 < metrics.kernel_distance(a, shifted)


def test_psnr_of_known_error() -> None:
    black, grey = np.zeros((1, 4, 4, 3), np.uint8), np.full((1, 4, 4, 3), 51, np.uint8)
    assert picture_psnr_db(black, grey) == pytest.approx(13.979, abs=1e-3)
    assert picture_psnr_db(grey, grey) == MAX_PSNR_DB == 200.0


def test_every_sweep_is_of_a_parameter_that_requests_have() -> None:
    for name, values in SWEEPS.items():
        requests = [parse_request(NANO, request_of("a man", [], {name: value})) for value in values]
        assert len({getattr(request, name) for request in requests}) == len(values)
    with pytest.raises(UserError, match="guidance: expected a parameter of a request"):
        request_of("a man", [], {"guidance": 1.0})


def test_precisions_are_compared_with_the_first(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    def point(_jury: Jury, pictures: NDArray[np.uint8], _cases: Cases) -> dict[str, float]:
        """Brighter pictures are less alike."""
        of = {"id_similarity": 11 - float(pictures.mean()) / 100, "verification_auc": 0.9}
        return {**of, "id_similarity_error": 0.11, "verification_auc_error": 0.01}

    monkeypatch.setattr(quality_sweeps, "point", point)
    level = {"fp32": 100, "fp16": 100, "int8w": 110, "int4w": 112}
    asked = []

    def maker_of(name: str) -> Maker:
        def make(cases: Cases, settings: Settings) -> NDArray[np.uint8]:
            asked.append((name, dict(settings)))
            return np.full((len(cases), 4, 4, 3), level[name], np.uint8)

        return make

    points, pictures = quality_sweeps.precisions(list(level), maker_of, cast(Jury, None), world.usual, {"seed": 1})
    assert [name for name, _ in asked] == [point["value"] for point in points] == list(level)
    least = [point["psnr_db"]["least"] for point in points]
    assert least == [MAX_PSNR_DB, MAX_PSNR_DB, pytest.approx(28.13, abs=0.01), pytest.approx(26.55, abs=0.01)]
    assert [point["identity_kept"] for point in points] == [True, True, True, False]
    assert pictures.shape[:2] == (4, len(world.usual)) and all(settings == {"seed": 1} for _, settings in asked)


def test_one_precision_of_the_denoiser_leaves_the_others_alone() -> None:
    placement = cpu_placement("fp32", "int8w")
    found = {name: each.precision for name, each in placement.components.items()}
    assert found.pop("denoiser") == "int8w" and set(found.values()) == {"fp32"}
    assert placement.name != cpu_placement("fp32").name == cpu_placement("fp32", "fp32").name


def test_a_request_brings_its_crops_as_aligned_ones() -> None:
    arrays = request_of("a man", [b"one", b"two"], {"seed": 3, "scheduler": "euler"})
    assert list(arrays["face_images"]) == [b"one", b"two"] and arrays["face_aligned"][0]
    assert parse_request(NANO, arrays).face_aligned and "face_aligned" not in request_of("a man", [], {})


def test_peers_in_torch_take_what_they_know_and_refuse_the_rest() -> None:
    settings = {"guidance_scale": 2.0, "num_inference_steps": 5, "scheduler": "DDIMScheduler"}
    assert guidance_of(settings) == Guidance(text=2.0, identity=2.0, steps=5, scheduler="DDIMScheduler")
    with pytest.raises(ValueError, match="blend_weight"):
        guidance_of({**settings, "blend_weight": 0.5})


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(2, 2)


def test_the_world_keeps_what_it_judges_by_from_the_model(world: World) -> None:
    cases = world.usual
    assert len(cases) == 4 and cases.seeds == (0, 1, 2, 3) and list(cases.who) == [0, 0, 1, 1]
    assert len(world.kept.pictures) == 6 and len(world.drawn.pictures) == 4
    shown = cases.shots.pictures
    assert all(not np.array_equal(kept, one) for kept in world.kept.pictures for one in shown)
    # Every turned reference of a person is used first once in so many prompts, and none is of somebody else.
    assert all(abs(scene.yaw) >= 0.35 and scene.hat == "none" for scene in world.turned.shots.scenes)
    for person, rows in zip(world.turned.who, world.turned.references, strict=True):
        assert sorted(rows) == [4 * person + k for k in range(4)]
    assert world.turned.references[0][0] != world.turned.references[1][0]
    some = cases.only([2])
    assert (some.prompts, some.seeds, list(some.who)) == ((cases.prompts[2],), (2,), [1])
    assert cases.faceless().references == ((), (), (), ()) and set(cases.faceless().shown["place"]) == {-1}


def test_prompts_say_what_they_are_judged_by(world: World) -> None:
    scene = replace(world.usual.scenes[0], place="beach", time="day", light="soft", hat="cap", expression="neutral")
    asked = replace(world.usual, scenes=(scene,) * 4).asked
    assert {asked["time"][0], asked["light"][0]} == {-1}
    text = describe(sample_identity(200_000), scene)
    assert "on a beach" in text and "neutral" in text and scene.garment in text and "cap" in text
    assert asked["place"][0] == ATTRIBUTES["place"].index("beach")
    assert asked["hat_colour"][0] == JUDGED["hat_colour"].index(scene.hat_colour)
    assert replace(world.usual, scenes=(replace(scene, hat="none"),) * 4).asked["hat_colour"][0] == -1


def test_sweeps_use_cases_of_all_people_and_say_how_sure_they_are(world: World) -> None:
    assert list(spread(world.usual, 2).who) == [0, 1] and len(spread(world.usual, 99)) == 4
    assert mean_and_error(np.array([1, 3], np.float32)) == (2.0, 1.0) and mean_and_error(np.ones(1, np.float32)) == (1.0, 0.0)


def test_a_peer_without_weights_is_absent_and_never_invented() -> None:
    row = {"id_similarity": 0.5, "verification_auc": 0.9, "text_accuracy": {"mean": 0.7}}
    found = headline({JOINT: row, ADAPTER: None, TEXT_ONLY: {**row, "id_similarity": 0.1}})
    assert found == {
        "verification_auc": 0.9,
        "id_similarity": {"joint": 0.5, "adapter": None, "text_only": 0.1},
        "text_accuracy": {"joint": 0.7, "adapter": None, "text_only": 0.7},
    }


def test_the_smallest_psnr_counts_and_json_can_carry_it() -> None:
    black, grey = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 51, np.uint8)
    assert smallest_psnr_db(np.stack([black, black]), np.stack([black, grey])) == 13.98
    assert smallest_psnr_db(np.stack([black]), np.stack([black])) == 200.0


@pytest.mark.proof
def test_sheets_and_curves_have_the_form_they_promise(tmp_path: Path) -> None:
    picture = np.full((128, 128, 3), 90, np.uint8)
    made = sheet([[picture] * 3] * 2, ["reference", "one", "two"], 64, ["a long prompt that is broken into lines"] * 2)
    assert made.shape[1] == 12 + (64 + 12) * 4 and made.shape[0] > 2 * (64 + 12)
    assert (made == 90).all(2).sum() == 6 * 64 * 64  # all pictures, whole
    with pytest.raises(ValueError, match="expected 3 pictures in each row"):
        sheet([[picture]], ["reference", "one", "two"])
    points = [
        {"value": v, "id_similarity": s, "text_accuracy": 0.8, "seconds_per_picture": 1.0} for v, s in ((0, -0.1), (5, 0.6))
    ]
    flat = [{**point, "id_similarity": 0.6} for point in points]

    def drawn(points: list[dict[str, float]], usual: int | None = None) -> NDArray[np.uint8]:
        return np.asarray(
            Image.open(save_figure(curve(points, "id_guidance_scale", usual), tmp_path / "curve.png")).convert("RGB")
        )

    assert drawn(points, 5).shape == (370, 560, 3)
    assert np.array_equal(drawn(points), drawn(points))
    assert not np.array_equal(drawn(points), drawn(points, 5)) and not np.array_equal(drawn(points), drawn(flat))


def test_the_page_shows_absent_peers_and_every_figure(tmp_path: Path) -> None:
    row = {"id_similarity": 0.5, "verification_auc": 0.9, "text_accuracy": {"mean": 0.7}, "seconds_per_picture": 1.0}
    points = [{"value": 1, **row, "text_accuracy": 0.7, "gain": 0.0, "gain_error": 0.0},
              {"value": 2, **row, "text_accuracy": 0.7, "gain": 0.0123, "gain_error": 0.004}]  # fmt: skip
    document = {
        "variant": "nano", "table": {"joint": row, "adapter": None}, "protocol": {"summary": "two <people>"},
        "text_only_is": "the joint model", "psnr_fp16_db": 60.0, "psnr_served_db": None, "sweeps": {"references": points},
    }  # fmt: skip
    page = write_page(tmp_path, document, {"references": 1}).read_text()
    assert "absent: no weights" in page and "two &lt;people&gt;" in page and "+0.0123 ± 0.0040" in page
    assert (tmp_path / "sweep-references.png").exists() and (tmp_path / "quality.json").exists()


def test_sweeps_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    quality.add_arguments(parser)
    assert parser.parse_args(["--sweeps", "all"]).sweeps == list(NAMES)
    assert parser.parse_args(["--sweeps", "references"]).sweeps == ["references"]
    with pytest.raises(SystemExit):
        parser.parse_args(["--sweeps", "colour"])
    assert "--sweeps: expected all, or some of" in capsys.readouterr().err


def test_the_command_is_registered_and_photographs_need_a_recogniser(tmp_path: object) -> None:
    parser = argparse.ArgumentParser()
    quality.add_arguments(parser)
    arguments = parser.parse_args(["--pictures", str(tmp_path)])
    with pytest.raises(UserError, match="--recogniser"):
        quality.run(arguments)
