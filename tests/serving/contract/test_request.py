"""Reading a request: what passes, what is refused, and what comes back over the wire."""

import base64
import re

import numpy as np
import pytest

from faceclip_serving.contract.errors import InvalidRequest
from faceclip_serving.contract.parameters import RANDOM_SEEDS, Need
from faceclip_serving.contract.request import (
    check_names,
    parse_request,
    reference_photos,
    request_tensors,
    to_wire,
    warn_of_idle,
)
from faceclip_serving.contract.variants.sdxl import SDXL, TINY_SDXL
from tests.serving.contract.test_parameters import KNOWN, PHOTO, TEXT, raw


@pytest.mark.parametrize(("first", "last"), [("guidance_start", "guidance_end"), ("id_start", "id_end")])
def test_an_interval_may_be_empty_and_does_not_run_back(first, last):
    request = parse_request(TINY_SDXL, raw(**{first: 0.5, last: 0.5}))
    assert (getattr(request, first), getattr(request, last)) == (0.5, 0.5)
    with pytest.raises(InvalidRequest, match=rf"^{first}: expected at most {last} \(0\.25\), got 0\.75$"):
        parse_request(TINY_SDXL, raw(**{first: 0.75, last: 0.25}))


def test_no_photographs_are_no_end_of_the_request_and_an_unknown_name_is_told_the_known_ones():
    assert list(request_tensors(face_images=[], prompt="words")) == ["prompt"]
    with pytest.raises(InvalidRequest, match=re.escape(f"one of {', '.join(KNOWN)}") + "$"):
        request_tensors(face=[b"x"])


def test_text_may_come_as_text_and_says_where_it_is_none():
    assert parse_request(TINY_SDXL, raw() | {"prompt": np.array(["a hat"], object)}).prompt == "a hat"
    assert reference_photos(TINY_SDXL, {"face_images": np.array([TEXT.decode()], object)}) == [PHOTO]
    with pytest.raises(InvalidRequest, match=r"^prompt: .*\(invalid start byte at 3\)$"):
        parse_request(TINY_SDXL, raw(prompt=b"abc\xff"))


def test_pictures_go_over_the_wire_as_bytes_or_as_base64():
    files = [b"one", b"\xfftwo"]
    assert list(to_wire(files, "binary")) == files
    assert [base64.b64decode(each) for each in to_wire(files, "base64")] == files
    assert to_wire(files, "base64")[0] != files[0]


def test_what_a_need_says_names_the_parameter_to_set():
    named = {need: next(name for name in re.findall(r"\w+", need.value) if name in KNOWN) for need in Need}
    assert named == {
        Need.FACE: "face_images", Need.PHOTOGRAPH: "face_images", Need.FOUND: "face_images", Need.FACES: "face_images",
        Need.GUIDANCE: "guidance_scale", Need.SCALES: "guidance_scale", Need.NO_TEXT_SCALE: "text_guidance_scale",
        Need.SOMEBODY: "face_images", Need.IMAGE: "image", Need.MASK: "mask", Need.NAMED_MASK: "mask",
    }  # fmt: skip


def test_random_seeds_are_many_and_javascript_can_count_on_from_each():
    assert RANDOM_SEEDS >= 2**50 and RANDOM_SEEDS + SDXL.limits.num_images_per_prompt < 2**53


def test_the_short_name_of_a_command_line_is_understood():
    with pytest.raises(InvalidRequest, match=r"^face: this model has no such parameter; did you mean 'face_images'"):
        check_names(["face"], KNOWN)


def test_a_parameter_without_effect_is_named_with_what_it_needs():
    arrays = raw(blend_weight=0.5, face_aligned=False, seed=1)
    request = parse_request(TINY_SDXL, arrays)
    (warning,) = warn_of_idle(TINY_SDXL, arrays, request, set(Need) - {Need.FACE})
    assert warning == f"blend_weight: it has no effect here; it needs {Need.FACE.value}"
    assert warn_of_idle(TINY_SDXL, arrays, request, set(Need)) == []


@pytest.mark.parametrize(
    "name",
    ["timeout", "priority", "id", "sequence_id", "sequence_start", "sequence_end", "binary_data_output", "Triton_x", "X-Tenant",
     "faceclip_from_model"],
)  # fmt: skip
def test_tritons_own_parameters_and_headers_pass_and_do_not_hide_a_wrong_one(name):
    check_names([name], ["prompt"])
    with pytest.raises(InvalidRequest, match=r"^xyzzy: this model has no such parameter; known are prompt, seed$"):
        check_names([name, "xyzzy"], ["prompt", "seed"])


@pytest.mark.parametrize("space", [b"", b" \r\n"])
@pytest.mark.parametrize(
    ("sent", "said"), [(b"https://example.org/me.jpg", "a URL"), (b"HTTP://EXAMPLE.ORG", "a URL"), (b"DATA:,abc", "';base64,'")]
)
def test_links_are_refused_however_they_are_spelt(space, sent, said):
    with pytest.raises(InvalidRequest, match=rf"^face_images\[0\]: expected .*{said}"):
        reference_photos(TINY_SDXL, {"face_images": np.array([space + sent], object)})


@pytest.mark.parametrize("more", [b"", b"x", b"xy"])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_base64_may_lack_its_padding(more, padding):
    sent = base64.b64encode(PHOTO + more)
    sent = sent.rstrip(b"=") + b"=" * min(padding, -len(sent.rstrip(b"=")) % 4)
    assert reference_photos(TINY_SDXL, {"face_images": np.array([sent], object)}) == [PHOTO + more]


def test_text_that_is_neither_a_file_nor_base64_is_refused_with_its_length_and_the_reason():
    sent = b"QUJD" * 100 + b"!" + b"QUJD"
    with pytest.raises(InvalidRequest, match=r"got 405 bytes of text that are neither \(.+\); encode the whole file"):
        reference_photos(TINY_SDXL, {"face_images": np.array([sent], object)})


def test_a_data_url_is_read_however_it_is_spelt():
    sent = b"\n Data:image/png;BASE64," + TEXT + b"\n"
    assert reference_photos(TINY_SDXL, {"face_images": np.array([sent], object)}) == [PHOTO]
