"""Faces that an operator lists: the same photograph again is refused, in other sizes too; another person is not.

The recogniser's own weights are fetched by an operator; here its network has random ones, which tell pictures apart all the same.
"""

import io
import re

import numpy as np
import pytest
from PIL import Image

from export.paths import ROOT
from export.recogniser.command import graph_of
from faceclip_serving.checks.checks import Checks, RefusedBy
from faceclip_serving.checks.listed import ListedFaces, Recogniser
from faceclip_serving.checks.policy import PHOTOGRAPHS, PolicyError, read
from faceclip_serving.face.detectors import YuNet
from faceclip_serving.face.prepare import prepare_face
from tests.export.recogniser.recogniser import random_weights

PHOTO = ROOT / "examples" / "portrait.png"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("listed")
    (folder / "recogniser.onnx").write_bytes(graph_of(random_weights()).SerializeToString())
    (folder / "faces").mkdir()
    (folder / "faces" / "one.png").write_bytes(PHOTO.read_bytes())
    return folder


def listing(folder, faces="faces", recogniser="recogniser.onnx", distance=0.5):
    (folder / "policy.toml").write_text(
        f'[listed]\nfaces = "{faces}"\nrecogniser = "{recogniser}"\ndistance = {distance}\n'
        "[photographs]\nrefuse = false\nreview = false\n"
    )
    return Checks(read(folder / "policy.toml"), [PHOTOGRAPHS])


def crop(picture):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return prepare_face(file.getvalue(), 0, False, YuNet()).crop


def test_a_listed_face_is_refused_and_another_is_not(folder):
    photo = Image.open(PHOTO).convert("RGB")
    describe = Recogniser(folder / "recogniser.onnx")
    same = [crop(photo), crop(photo.resize((photo.width * 3 // 5, photo.height * 3 // 5)))]
    other = np.random.default_rng(0).uniform(0, 1, (3, 448, 448)).astype(np.float32)
    near = max(float(np.linalg.norm(describe(each) - describe(crop(photo)))) for each in same)
    far = float(np.linalg.norm(describe(other) - describe(crop(photo))))
    assert near < far / 3
    checks = listing(folder, distance=round(min(far / 2, 2.0), 3))
    for each in same:
        with pytest.raises(RefusedBy, match=r"^policy\.face_listed: face_images\[1\] shows somebody") as raised:
            checks.photographs([], [other, each])
        assert [decision.action for decision in raised.value.decisions] == ["allow", "refuse"]
    (decision,) = checks.photographs([], [other])
    assert (decision.check, decision.action) == ("faces", "allow") and decision.score == pytest.approx(far, rel=0.2)


def test_an_identity_is_compared_by_what_it_was_made_with_as_the_photograph_would_be(folder):
    photo = crop(Image.open(PHOTO).convert("RGB"))
    other = np.random.default_rng(0).uniform(0, 1, (3, 448, 448)).astype(np.float32)
    describe = Recogniser(folder / "recogniser.onnx")
    far = float(np.linalg.norm(describe(other) - describe(photo)))
    checks = listing(folder, distance=round(min(far / 2, 2.0), 3))
    descriptors, recogniser = checks.descriptors([other, photo])
    assert len(descriptors) == 2 and len(descriptors[0]) == 128
    (decision,) = checks.identity(descriptors[:1], recogniser)
    (photograph,) = checks.photographs([], [other])
    assert (decision.check, decision.action) == ("faces", "allow") and decision.score == pytest.approx(photograph.score)
    with pytest.raises(RefusedBy, match=r"^policy\.face_listed: the identity is of somebody"):
        checks.identity(descriptors, recogniser)
    for known, by in (([], ""), (descriptors[:1], "another")):
        with pytest.raises(RefusedBy, match=r"^policy\.unchecked: the identity was made where"):
            checks.identity(known, by)
    nobody = Checks(read(), [PHOTOGRAPHS])
    assert nobody.descriptors([photo]) == ([], "") and nobody.identity([], "") == []


@pytest.mark.proof
@pytest.mark.parametrize("degrees", [30, 90, 180, 200])
def test_a_caller_who_aligned_is_not_believed(folder, degrees):
    listed = ListedFaces(folder / "faces", folder / "recogniser.onnx", 0.5)
    upright = Image.fromarray(np.rint(crop(Image.open(PHOTO).convert("RGB")) * 255).astype(np.uint8).transpose(1, 2, 0))
    turned = np.asarray(upright.rotate(degrees), np.float32).transpose(2, 0, 1) / 255
    _, believed = listed(turned)
    _, found = listed(turned, trusted=False)
    assert found < 0.7 * believed


def test_where_no_face_is_found_each_quarter_turn_counts(folder, monkeypatch):
    listed = ListedFaces(folder / "faces", folder / "recogniser.onnx", 0.5)
    monkeypatch.setattr("faceclip_serving.checks.listed.find_faces", lambda pixels, detect: [])
    lying = np.ascontiguousarray(np.rot90(crop(Image.open(PHOTO).convert("RGB")), axes=(1, 2)))
    assert listed(lying, trusted=False)[1] < listed(lying)[1] / 2


def test_a_request_says_who_aligned_its_photographs(folder):
    checks = listing(folder)
    asked = []
    checks._faces = lambda crop, trusted: (asked.append(trusted), (False, 1.0))[1]
    blank = np.zeros((3, 448, 448), np.float32)
    checks.photographs([], [blank])
    checks.photographs([], [blank], trusted=False)
    assert asked == [True, False]


def test_what_cannot_be_read_ends_the_start(folder, tmp_path):
    empty, blank = folder / "empty", folder / "blank"
    for each in (empty, blank):
        each.mkdir()
    Image.new("RGB", (200, 200)).save(blank / "wall.png")
    (folder / "other.onnx").write_bytes(b"no model")
    for options, message in (
        ({"faces": "empty"}, "expected 1 to 2000 photographs"),
        ({"faces": "blank"}, "wall.png': no face was found in 200 x 200 pixels"),
        ({"faces": "none"}, "[listed] faces: expected a folder"),
        ({"recogniser": "other.onnx"}, "other.onnx' cannot be opened"),
    ):
        with pytest.raises(PolicyError, match=re.escape(message)):
            listing(folder, **options)


def test_another_network_is_refused(folder):
    yunet = ROOT / "faceclip_serving" / "face" / "face_detection_yunet_2023mar.onnx"
    with pytest.raises(PolicyError, match="expected the file of `python -m export recogniser`"):
        Recogniser(yunet)
