"""TrustMark in the place of the own mark: its schema, what is done around its networks, and how it is told.

The two official files are fetched by a user. Here stand linear networks with the same inputs and outputs in their place, which
really put a mark on and read it; so nothing is said of how much TrustMark's own survives.
"""

import io
import json
import random

import c2pa
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from faceclip_serving.marking import bch, trustmark
from faceclip_serving.marking.authority import KeysError
from faceclip_serving.marking.trustmark import DECODER_FILE, ENCODER_FILE, SIDE, TrustMark
from faceclip_serving.marking.verify import verify
from faceclip_serving.marking.watermark import MIN_SIDE

from .conftest import marked

BITS, CELL = 100, 8
OF_THE_REFERENCE = [
    (0x1236EB092265B1F5, 0xDB33EFA),
    (0xB6DCDC07D4BEDC, 0x61D3940E6),
    (0x1423A8B32F978D87, 0x45F0C0B3),
]  # fmt: skip
"""61 data bits and the check bits that trustmark 0.9.2 computes for them."""


# -------------------------------------------------------------------------------------------------------------------- its code
@pytest.mark.parametrize(("data", "check"), OF_THE_REFERENCE)
def test_check_bits_are_those_of_trustmark(data, check):
    assert bch.check(data << 3) == check


@pytest.mark.parametrize("wrong", range(6))
def test_up_to_five_wrong_bits_are_put_right(wrong):
    chance = random.Random(wrong)
    for _ in range(30):
        word = chance.getrandbits(64)
        sent = word << bch.CHECK_BITS | bch.check(word)
        for place in chance.sample(range(64 + bch.CHECK_BITS), wrong):
            sent ^= 1 << place
        assert bch.corrected(sent >> bch.CHECK_BITS, sent & (1 << bch.CHECK_BITS) - 1, 64) == (word, wrong)


def test_noise_is_hardly_ever_a_word():
    chance = random.Random(7)
    found = [bch.corrected(chance.getrandbits(64), chance.getrandbits(bch.CHECK_BITS), 64) for _ in range(1500)]
    assert sum(each is not None for each in found) < 20
    with pytest.raises(ValueError, match="at most 92 bits, got 93"):
        bch.check(1 << 92)


def test_bits_of_another_schema_are_no_mark_of_ours():
    packet = trustmark._packet(0x123456789ABCDEF) > 0.5
    assert trustmark._read(packet) == (0x123456789ABCDEF, 0)
    other = packet.copy()
    other[-1] = not other[-1]
    assert trustmark._read(other) is None


# ------------------------------------------------------------------------------------------------------------------ stand-ins
@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Each bit is a pattern of its own, orthogonal to all others, of cells that alternate."""
    folder = tmp_path_factory.mktemp("trustmark")
    cells = SIDE // CELL
    hadamard = np.array([[1.0]])
    while len(hadamard) < cells * cells:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    high = [row for row in range(cells * cells) if row & 1 and row >> 5 & 1]  # change from cell to cell, both ways
    patterns = hadamard[high[:BITS]].astype(np.float32)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    encoder = helper.make_graph(
        [
            helper.make_node("Mul", ["bits", "two"], ["doubled"]),
            helper.make_node("Sub", ["doubled", "one"], ["signs"]),
            helper.make_node("MatMul", ["signs", "patterns"], ["flat"]),
            helper.make_node("Reshape", ["flat", "square"], ["cells"]),
            helper.make_node("Resize", ["cells", "", "scales"], ["pattern"], mode="nearest"),
            helper.make_node("Mul", ["pattern", "strength"], ["mark"]),
            helper.make_node("Add", ["cover", "mark"], ["image"]),
        ],
        "encoder",
        [
            helper.make_tensor_value_info("cover", TensorProto.FLOAT, [1, 3, SIDE, SIDE]),
            helper.make_tensor_value_info("bits", TensorProto.FLOAT, [1, BITS]),
        ],
        [image],
        [
            numpy_helper.from_array(patterns, "patterns"),
            numpy_helper.from_array(np.float32(2), "two"),
            numpy_helper.from_array(np.float32(1), "one"),
            numpy_helper.from_array(np.float32(0.004), "strength"),
            numpy_helper.from_array(np.array([1, 1, cells, cells]), "square"),
            numpy_helper.from_array(np.array([1, 1, CELL, CELL], np.float32), "scales"),
        ],
    )
    decoder = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["image", "channels"], ["grey"]),
            helper.make_node("AveragePool", ["grey"], ["cells"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
            helper.make_node("Reshape", ["cells", "flat"], ["row"]),
            helper.make_node("MatMul", ["row", "patterns"], ["output"]),
        ],
        "decoder",
        [image],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, BITS])],
        [
            numpy_helper.from_array(np.ascontiguousarray(patterns.T), "patterns"),
            numpy_helper.from_array(np.array([1]), "channels"),
            numpy_helper.from_array(np.array([1, cells * cells]), "flat"),
        ],
    )
    for name, graph in ((ENCODER_FILE, encoder), (DECODER_FILE, decoder)):
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.checker.check_model(model)
        onnx.save(model, folder / name)
    return folder


@pytest.fixture(scope="module")
def smooth():
    rows, columns = np.mgrid[0:600, 0:800] / 800
    return np.stack([80 + 90 * rows, 90 + 60 * columns, 120 + 40 * rows * columns], axis=2).astype(np.uint8)


# ------------------------------------------------------------------------------------------------------------- around the networks
@pytest.mark.parametrize("size", [(256, 256), (MIN_SIDE, MIN_SIDE), (600, 800), (800, 390), (300, 800)])
def test_a_mark_comes_back_at_every_shape(networks, smooth, size):
    mark = TrustMark(networks)
    picture = np.array(Image.fromarray(smooth).resize(size[::-1]))
    made, psnr_db = mark.embed(picture, "0123456789abcde")
    assert made.shape == picture.shape and made.dtype == np.uint8 and 25 < psnr_db < 60
    found = mark.read(made)
    assert found is not None and found.mark_id == "0123456789abcde" and not found.mirrored
    assert abs(made.astype(int).mean((0, 1)) - picture.astype(int).mean((0, 1))).max() < 1, "no colour moves"


def test_of_a_strip_the_square_in_the_middle_bears_the_mark(networks, smooth):
    made, _ = TrustMark(networks).embed(smooth[:200], "f" * 15)
    assert (made[:, :300] == smooth[:200, :300]).all() and (made[:, 500:] == smooth[:200, 500:]).all()
    assert (made != smooth[:200]).any()


def test_a_mirrored_picture_is_read_and_an_unmarked_one_is_not(networks, smooth):
    mark = TrustMark(networks)
    made, _ = mark.embed(smooth, "0" * 14 + "7")
    found = mark.read(made[:, ::-1])
    assert found is not None and found.mirrored and found.mark_id.endswith("7") and found.confidence > 8
    assert mark.read(smooth) is None


# ------------------------------------------------------------------------------------------------------------------ as a setting
def test_the_setting_puts_it_in_the_place_of_the_own_mark(networks, marker_of, smooth):
    marker = marker_of(trustmark=str(networks))
    made = marked(marker, smooth)
    assert marker.told()["watermark"] == "com.adobe.trustmark.Q" and "watermark" in marker.told()["on"]
    report = verify(made.file, marker.signer.anchors, marker.watermark.read)
    assert report.mark.mark_id == report.credentials.mark_id == made.record["mark_id"] == made.record["id"][:15]
    assert report.found and not report.doubtful
    with c2pa.Reader("image/png", io.BytesIO(made.file)) as reader:
        manifest = json.loads(reader.json())
    (binding,) = (
        each["data"]
        for each in manifest["manifests"][manifest["active_manifest"]]["assertions"]
        if each["label"].startswith("c2pa.soft-binding")
    )
    assert binding["alg"] == "com.adobe.trustmark.Q"
    schema, bits = binding["blocks"][0]["value"].split("*")
    assert schema == "1" and len(bits) == 61 and int(bits, 2) >> 1 == int(made.record["mark_id"], 16)


def test_a_small_picture_bears_none_and_that_is_told(networks, marker_of, smooth):
    made = marked(marker_of(trustmark=str(networks)), smooth[: MIN_SIDE - 1])
    assert made.record["mark_id"] is None and made.record["manifest"]


def test_a_folder_without_the_files_says_how_they_are_fetched(marker_of, tmp_path):
    with pytest.raises(
        KeysError, match=r"trustmark: expected TrustMark's encoder_Q.onnx in .*export download --only trustmark"
    ):
        marker_of(trustmark=str(tmp_path))
    (tmp_path / ENCODER_FILE).write_bytes(b"no graph")
    with pytest.raises(KeysError, match="encoder_Q"):
        marker_of(trustmark=str(tmp_path))
