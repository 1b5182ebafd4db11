"""What calibration pictures are made from, ranges inside graphs, and what two precisions draw; all on small graphs."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.networks.components import network
from export.onnx.example_inputs import example_inputs
from export.onnx.parity import onnx_run
from export.quantize import calibration, ranges
from export.quantize import compare_pictures as picture
from export.quantize.calibration import draw_all, recorded
from export.quantize.sitting import Sitting
from faceclip_serving.contract.components import components
from faceclip_serving.contract.names import COMPONENTS, DENOISER, FACE_ENCODER, TEXT_ENCODER, VAE_DECODER
from faceclip_serving.contract.placements import ONNX_FILE
from faceclip_serving.contract.variants.sdxl import TINY_SDXL

SITTING = Sitting(prompts=("a red coat", "a library"), steps=3, size=(64, 96))


def constant(component):
    """A component that answers the same whatever it is asked, in the shapes of its signature."""
    signature = components(TINY_SDXL)[component]

    def run(arrays):
        signature.check_inputs(arrays)
        sizes = {axis: size for t in signature.inputs for axis, size in zip(t.axes, arrays[t.name].shape, strict=True)}
        sizes |= {"height": 8 * sizes.get("latent_height", 0), "width": 8 * sizes.get("latent_width", 0)}
        return {t.name: np.full(t.shape(sizes), 0.25, np.float32) for t in signature.outputs}

    return run


def watched_by(kept):
    @contextmanager
    def opened(component):
        yield recorded(constant(component), kept.setdefault(component, []))

    return opened


def test_networks_meet_prompts_a_face_and_every_step_of_a_guided_run():
    kept = {}
    pictures = draw_all(TINY_SDXL, SITTING, watched_by(kept))
    assert [picture.shape for picture in pictures] == [(1, 3, 64, 96)] * 2
    assert {name: len(calls) for name, calls in kept.items()} == {
        FACE_ENCODER: 2, TEXT_ENCODER: 2, DENOISER: 2 * SITTING.steps, VAE_DECODER: 2,
    }  # fmt: skip
    face = kept[FACE_ENCODER][0]["aligned_faces"]
    assert face.shape[0] == 1 and face.std() > 0.1
    texts = [call["input_ids"] for call in kept[TEXT_ENCODER]]
    assert not np.array_equal(*texts) and all(TINY_SDXL.tokens[0].identity_token in ids for ids in texts)
    times = [call["timestep"][:, 0].tolist() for call in kept[DENOISER]]
    assert all(len(set(rows)) == 1 and len(rows) == 2 for rows in times)
    assert times[0] > times[1] > times[2] and times[3:] == times[:3]


# ------------------------------------------------------------------------------------------------------------------ ranges
@pytest.fixture
def graph(tmp_path):
    """x -> [a layer that makes 1000 x] -> [one that makes 100 times that] -> Softmax."""
    weights = [
        numpy_helper.from_array(np.array([[1000.0]], np.float32), "first.weight"),
        numpy_helper.from_array(np.array([[100.0]], np.float32), "second.weight"),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "first.weight"], ["thousand"]),
        helper.make_node("MatMul", ["thousand", "second.weight"], ["large"]),
        helper.make_node("Neg", ["large"], ["negative"]),
        helper.make_node("Softmax", ["negative"], ["y"]),
    ]
    inner = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1]) for name in ("thousand", "large", "negative")]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1]) for name in ("x", "y")]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:], weights, value_info=inner),
        opset_imports=[helper.make_opsetid("", 21)],
    )
    model.ir_version = 10
    onnx.save(model, tmp_path / ONNX_FILE)
    return tmp_path / ONNX_FILE


def spans(path, row, *inputs):
    run, largest, watched = ranges.watch(path, ["y"])
    outputs = [run({"x": np.array([[value]], np.float32)}) for value in inputs]
    assert all(set(output) == {"y"} and output["y"] == 1 for output in outputs)
    return ranges.judge(watched, largest, row)


ROW = replace(network(TINY_SDXL, FACE_ENCODER), fp32=())


def test_every_tensor_has_its_largest_absolute_value_over_all_calls(graph):
    found = {span.tensor.name: span for span in spans(graph, ROW, 0.5, -2.0, 1.0)}
    assert {name: span.largest for name, span in found.items()} == {
        "thousand": 2000, "large": 200_000, "negative": 200_000, "y": 1,
    }  # fmt: skip
    assert found["thousand"].margin == pytest.approx(65504 / 2000)
    assert [found[name].tensor.layer for name in ("thousand", "large", "negative")] == ["first.weight", *["second.weight"] * 2]
    assert [path.name for path in graph.parent.iterdir()] == [ONNX_FILE]


def test_what_overflows_is_named_unless_it_is_kept_out_of_half_precision(graph):
    found = {FACE_ENCODER: ranges.report(spans(graph, ROW, 1.0), ROW)}
    assert [span["tensor"] for span in found[FACE_ENCODER]["needs_fp32"]] == ["large", "negative"]
    with pytest.raises(ranges.RangeError, match=r"face_encoder: 'large' \(MatMul, layer second.weight\) reaches 1e\+05"):
        ranges.require_fit(found)
    ranges.require_fit({FACE_ENCODER: ranges.report(spans(graph, ROW, 0.1), ROW)})
    for kept in (replace(ROW, fp32=("second",)), replace(ROW, fit_half=lambda *_: None)):
        ranges.require_fit({FACE_ENCODER: ranges.report(spans(graph, kept, 1.0), kept)})


def test_a_declared_layer_says_whether_its_range_demands_it(graph):
    row = replace(ROW, fp32=("first", "second"))
    declared = ranges.report(spans(graph, row, 1.0), row)["declared"]
    assert declared["first"] == {"tensors": 1, "largest": 1000, "by_range": False}
    assert declared["second"] == {"tensors": 2, "largest": 100_000, "by_range": True}


def test_what_follows_the_product_of_a_wide_layer_is_fp32_and_the_product_is_not(graph):
    row = replace(ROW, wide=("second",))
    assert [span["tensor"] for span in ranges.report(spans(graph, row, 1.0), row)["needs_fp32"]] == ["large"]


def test_a_value_that_is_no_number_counts_as_infinite(graph):
    run, largest, watched = ranges.watch(graph, ["y"])
    for value in (np.nan, 1.0):
        run({"x": np.array([[value]], np.float32)})
    assert ranges.report(ranges.judge(watched, largest, ROW), ROW)["needs_fp32"][0]["largest"] == np.inf


def test_the_tiny_networks_fit_half_precision_and_the_graph_is_not_changed(tiny_fp32):
    """The real graphs, from prompt to picture: watched, they compute what they compute unwatched."""
    short = replace(SITTING, prompts=("a red coat",), steps=1, size=(64, 64))
    found = ranges.measure(TINY_SDXL, tiny_fp32, [FACE_ENCODER], short)
    assert set(found) == {FACE_ENCODER} and found[FACE_ENCODER]["tensors"] > 50
    assert found[FACE_ENCODER]["largest"]["margin"] > 16
    ranges.require_fit(found)
    signature = components(TINY_SDXL)[FACE_ENCODER]
    given = example_inputs(TINY_SDXL, signature, {"faces": 1})
    run, _, _ = ranges.watch(tiny_fp32 / FACE_ENCODER / ONNX_FILE, ["class_token", "patch_token"])
    plain = onnx_run(tiny_fp32 / FACE_ENCODER / ONNX_FILE, signature)(given)
    for name, value in run(given).items():
        np.testing.assert_allclose(value, plain[name], atol=1e-4)


def test_a_missing_graph_is_named_with_its_cure(tmp_path):
    with pytest.raises(ranges.RangeError, match=r"expected .*model\.onnx in FP32; make them with `python -m export onnx"):
        ranges.measure(TINY_SDXL, tmp_path, [DENOISER], SITTING)
    with pytest.raises(picture.PictureError, match="make it with `python -m export onnx --variant tiny-sdxl`"):
        folders = dict.fromkeys(COMPONENTS, tmp_path)
        picture.compare(TINY_SDXL, folders, folders, SITTING)


# ----------------------------------------------------------------------------------------------------------------- picture
def test_pictures_of_two_precisions_must_be_alike(tmp_path, monkeypatch):
    def drawn(offsets):
        left = iter(offsets)
        monkeypatch.setattr(
            calibration, "draw_all", lambda *_: [np.full((1, 3, 8, 8), next(left), np.float32) for _ in range(2)]
        )
        return picture.compare(TINY_SDXL, folders, folders, SITTING)

    (tmp_path / ONNX_FILE).touch()
    folders = dict.fromkeys(COMPONENTS, tmp_path)
    assert drawn([0.51, 0.501, 0.5, 0.5]) == pytest.approx([40, 60], abs=1e-3)
    with pytest.raises(picture.PictureError, match=r"60\.0, 20\.0 dB apart, expected at least 35"):
        drawn([0.501, 0.6, 0.5, 0.5])
    with pytest.raises(picture.PictureError, match="nan"):
        drawn([np.nan, 0.5, 0.5, 0.5])
