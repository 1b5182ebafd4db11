"""The arithmetic of the measurements: percentiles, floors, ratios, sweeps, tables and charts. Nothing is timed here."""

import itertools
import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.measure.chart import Bar, bar_chart, save_figure
from benchmarks.measure.floor import Peak, component_sizes, floor_s, request_floor_s, unfused_s
from benchmarks.measure.report import RESULTS
from benchmarks.measure.sweep import SweepError, points, usual_point
from benchmarks.measure.table import table
from benchmarks.quality.command import result_name
from benchmarks.quality.sweeps import NAMES
from benchmarks.speed import compare
from benchmarks.speed.compare import agreement, figures, ratios, take_turns
from benchmarks.speed.latency import bars, summary, times_table
from benchmarks.speed.peers import ONNXRUNTIME, PEERS, TENSORRT, absent, device_of, on_onnxruntime
from benchmarks.speed.precision import drawn
from export.forecast.cost import Cost
from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.placements import CPU, GPU_ORT, placement_of
from faceclip_serving.contract.variants.sdxl import SDXL, TINY_SDXL

WORK = Cost(
    flops=1000,
    parameters=25,
    weight_bytes=100,
    boundary_bytes=20,
    traffic_bytes=500,
    activation_peak_bytes=60,
)


# --------------------------------------------------------------------------------------------------------------- latency
def test_a_summary_counts_its_runs():
    assert summary([0.2] * 7) == {"p50_s": 0.2, "p90_s": 0.2, "p99_s": 0.2, "runs": 7}


def test_percentiles_lie_on_lines_between_neighbours():
    assert summary([4.0, 1.0, 3.0, 2.0]) == {"p50_s": 2.5, "p90_s": 3.7, "p99_s": 3.97, "runs": 4}


# ------------------------------------------------------------------------------------------------------------------- floor
def test_the_floor_is_the_slower_of_products_and_bytes():
    assert floor_s(WORK, Peak(flops_per_s=100, bytes_per_s=1e9)) == 10.0
    assert floor_s(WORK, Peak(flops_per_s=1e9, bytes_per_s=12)) == 10.0
    assert unfused_s(WORK, Peak(flops_per_s=1e9, bytes_per_s=50)) == 10.0


def test_a_request_is_its_steps_and_one_decode():
    work = {"denoiser": WORK, "vae_decoder": replace(WORK, flops=3000)}
    assert request_floor_s(work, Peak(flops_per_s=1000, bytes_per_s=1e9), steps=8) == 8 + 3


def test_a_guided_request_runs_two_rows_a_picture_and_encodes_two_prompts():
    point = replace(usual_point(TINY_SDXL), images=3)
    sizes = component_sizes(TINY_SDXL, "denoiser", point)
    assert (sizes["rows"], sizes["images"], sizes["latent_height"], sizes["latent_width"]) == (6, 3, 24, 16)
    assert (sizes["height"], sizes["width"]) == (192, 128)
    assert component_sizes(TINY_SDXL, "text_encoder", point)["rows"] == 2


# ----------------------------------------------------------------------------------------------------------------- compare
def test_a_ratio_above_one_says_ours_is_faster():
    seconds = {"served": [1.0, 9.0, 2.0], "slow": [3.0, 4.0, 5.0], "fast": [1.0, 1.0, 1.0]}
    assert ratios(seconds, "served") == {"slow": 2.0, "fast": 0.5}


def test_compile_time_is_what_the_first_picture_took_beyond_a_usual_one():
    seconds = {"served": [1.0, 1.0], "onnxruntime": [2.0, 2.0], "torch_compile": [4.0, 4.0]}
    processors = {"served": [3.0, 3.0], "onnxruntime": [3.0, 3.0], "torch_compile": [1.5, 1.5]}
    found = figures(seconds, processors, {"served": 1.5, "onnxruntime": 2.5, "torch_compile": 64.0})
    assert found["ours_over"] == {"onnxruntime": 2.0, "torch_compile": 4.0}
    assert found["onnxruntime_over"] == {"served": 0.5, "torch_compile": 2.0}
    assert found["compile_s"] == 60.0
    assert found["ours_over_cpu"] == {"onnxruntime": 1.0, "torch_compile": 0.5}
    assert "compile_s" not in figures({"served": [1.0]}, {"served": [1.0]}, {"served": 1.0})


def test_peers_take_turns_and_each_begins_once(monkeypatch):
    monkeypatch.setattr(compare, "REST_S", 0)
    order = []
    peers = {name: lambda name=name: order.append(name) for name in "abc"}
    clock = itertools.count()
    seconds, processors = take_turns(peers, 3, lambda: next(clock))
    assert {name: len(each) for name, each in seconds.items()} == {"a": 3, "b": 3, "c": 3}
    assert processors == {"a": [1, 1, 1], "b": [1, 1, 1], "c": [1, 1, 1]}
    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_pictures_of_other_work_end_the_comparison():
    picture = np.full((8, 8, 3), 100, np.uint8)
    almost, other = picture.copy(), picture + 60
    almost[0, 0, 0] += 1
    assert agreement({"served": almost, "diffusers_eager": picture})["served"] > 60
    assert agreement({"served": picture, "onnxruntime": picture}) == {"onnxruntime": 200.0}
    with pytest.raises(UserError, match="the picture of served"):
        agreement({"served": other, "diffusers_eager": picture})


def test_a_peer_is_compared_where_the_server_computes():
    eight = placement_of(SDXL, "8gb")
    assert [device_of(placement) for placement in (CPU, GPU_ORT, eight)] == ["cpu", "cuda", "cuda"]
    assert on_onnxruntime(CPU) is CPU
    plain = on_onnxruntime(eight)
    assert {name: execution.runtime.name for name, execution in plain.components.items()} == {
        "face_encoder": "ort-cpu",
        "text_encoder": "ort-cpu",
        "denoiser": "ort-cuda",
        "vae_encoder": "ort-cpu",
        "vae_decoder": "ort-cuda",
    }
    assert plain.vae_tile == 0


def test_absent_peers_have_a_reason():
    wanted = [name for name in PEERS if name != ONNXRUNTIME]
    assert absent(CPU, wanted, [ONNXRUNTIME]) == {ONNXRUNTIME: "--skip", TENSORRT: "placement 'cpu' has no engines"}


# ------------------------------------------------------------------------------------------------------------------- sweep
def test_a_sweep_is_every_combination_and_keeps_what_is_not_named():
    found = points(TINY_SDXL, usual_point(TINY_SDXL), ["size=128x64,64x64", "images=1,2"])
    assert [(p.height, p.width, p.images) for p in found] == [(128, 64, 1), (128, 64, 2), (64, 64, 1), (64, 64, 2)]
    assert {p.steps for p in found} == {TINY_SDXL.defaults.num_inference_steps}


def test_a_placement_was_once_called_a_profile():
    usual = usual_point(SDXL)
    assert points(SDXL, usual, ["profile=8gb,cpu"]) == points(SDXL, usual, ["placement=8gb,cpu"])
    with pytest.raises(SweepError, match="given twice"):
        points(SDXL, usual, ["profile=8gb", "placement=cpu"])


def test_no_sweep_is_the_usual_request():
    assert points(SDXL, usual_point(SDXL), []) == [usual_point(SDXL)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["batch=2"], "expected placement|size|steps|images"),
        (["size="], "size="),
        (["size=64"], "HEIGHTxWIDTH"),
        (["size=60x64"], "multiple of 8, got '60'"),
        (["steps=0"], "from 1 to 200, got '0'"),
        (["images=9"], "from 1 to 4"),
        (["placement=moon"], "got 'moon'"),
        (["steps=4", "steps=8"], "given twice"),
    ],
)
def test_a_wrong_sweep_says_what_is_allowed(words, message):
    with pytest.raises(SweepError) as caught:
        points(TINY_SDXL, usual_point(TINY_SDXL), words)
    assert message in str(caught.value)


# --------------------------------------------------------------------------------------------------------- table and chart
def test_a_table_is_aligned():
    lines = table(["what", "ms"], [["a", 1.23456], ["longer", 1234.5], ["none", None]]).splitlines()
    assert lines == ["what       ms", "a        1.23", "longer  1,234", "none        –"]
    with pytest.raises(ValueError, match="expected 2 cells"):
        table(["what", "ms"], [["a"]])


def test_times_stand_beside_the_floor():
    times = {"p50_s": 0.004, "p90_s": 0.005, "p99_s": 0.006}
    point = {
        "label": "here",
        "floor": {"denoiser": {"floor_s": 0.002}},
        "request_floor_s": 0.002,
        "stages": {"denoiser": times},
        "request": {**times, "images_per_s": 250.0, "peak_bytes": 2e6},
    }
    _, stage, request = times_table([point]).splitlines()
    assert stage.split() == ["here:", "denoiser", "4", "5", "6", "2", "2", "–", "–"]
    assert request.split() == ["here:", "request", "4", "5", "6", "2", "2", "250", "2"]


BARS = [Bar("short <& sharp>", 10.0, floor=5.0, whisker=20.0), Bar("long", 40.0)]


def test_bars_are_as_long_as_their_values():
    (axes,) = bar_chart("title", "ms", BARS).axes
    assert [patch.get_width() for patch in axes.patches] == [10.0, 40.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["short <& sharp>", "long"]
    assert axes.yaxis.get_inverted()  # the first one is at the top


def test_nothing_is_drawn_outside_of_the_picture():
    figure = bar_chart("a title", "ms", [replace(bar, label=60 * "w", whisker=55.0) for bar in BARS])
    figure.draw_without_rendering()
    frame, texts = figure.bbox, [*figure.axes[0].texts, *figure.axes[0].get_yticklabels(), figure.axes[0].title]
    for box in (text.get_window_extent() for text in texts):
        assert frame.x0 <= box.x0 <= box.x1 <= frame.x1 and frame.y0 <= box.y0 <= box.y1 <= frame.y1


def test_both_files_are_the_same_picture(tmp_path: Path):
    drawn, painted = (save_figure(bar_chart("title", "ms", BARS), tmp_path / "new" / f"chart{end}") for end in (".svg", ".png"))
    root = ElementTree.parse(drawn).getroot()
    texts = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "short <& sharp>" in texts and "title" in texts
    width, height = (float(value) for value in root.get("viewBox").split()[2:])
    pixels = Image.open(painted)
    assert pixels.width / pixels.height == pytest.approx(width / height, rel=0.01)
    assert len(pixels.convert("RGB").getcolors(1 << 16)) > 3


def test_the_chart_that_is_kept_is_drawn_from_the_figures_beside_it(tmp_path: Path):
    document = json.loads((RESULTS / "latency-tiny-sdxl.json").read_text())
    figure = bar_chart("tiny-sdxl: milliseconds against the floor", "ms", bars(document["points"]))
    kept = RESULTS / "latency-tiny-sdxl.svg"
    assert save_figure(figure, tmp_path / kept.name).read_text() == kept.read_text()


@pytest.mark.parametrize("bars", [[], [Bar("a", float("nan"))], [Bar("a", -1.0)]])
def test_a_chart_of_nothing_is_refused(bars):
    with pytest.raises(ValueError, match="finite values from 0 on"):
        bar_chart("title", "ms", bars)


# ------------------------------------------------------------------------------------------------------------------ quality
def test_a_part_of_the_sweeps_has_a_result_of_its_own():
    assert result_name("nano", NAMES) == result_name("nano", ()) == "quality-nano"
    assert result_name("nano", ["references", "precision"]) == "quality-nano-precision-references"


def test_one_seed_is_anothers_for_each_prompt_and_eight_are_all_for_all():
    once = drawn(8, 1)
    assert len({prompt for prompt, _ in once}) == 8 and [seed for _, seed in once] == list(range(8))
    assert set(once) <= set(drawn(8, 8)) and len(set(drawn(8, 8))) == 64
