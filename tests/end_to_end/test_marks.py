"""A real server with marks on, as it is by default: every picture and preview is marked, and the server tells what it found."""

import io
import json
import os

import numpy as np
import pytest
import tritonclient.grpc as grpc
from PIL import Image
from tritonclient.utils import InferenceServerException

from faceclip import FaceCLIPPipeline, verify_picture
from faceclip.address import split_target
from faceclip.grpc_transport import GrpcTransport
from server.control import marks_of
from server.marks import prepare
from server.process import Ports, TritonServer

from .running import command

QUICK = {"num_inference_steps": 1, "height": 192, "width": 128, "guidance_scale": 1.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def marking(repository, folder, tmp_path_factory):
    log = tmp_path_factory.mktemp("marking") / "log"
    settings = [f"marks_folder={folder}", "provider=Bildwerk GmbH"]
    with TritonServer(repository, Ports.free(), log=log, settings=settings) as server:
        server.wait_ready()
        yield server
        server.stop(0)


@pytest.fixture(scope="module")
def pipe(marking):
    with FaceCLIPPipeline.from_pretrained(marking.url, timeout_s=120) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def transport(marking):
    opened = GrpcTransport(split_target(marking.url)[0])
    yield opened
    opened.close()


@pytest.mark.proof
@pytest.mark.parametrize("output_format", ["PNG", "JPEG", "WEBP"])
def test_every_picture_is_marked_and_the_server_says_so(pipe, transport, output_format):
    made = pipe("a lighthouse", output_format=output_format, output_type="bytes", num_images_per_prompt=2, **QUICK)
    marks = made.details["marks"]
    assert marks["on"] == ["watermark", "metadata", "credentials"] and marks["off"] == ["visible_label"]
    assert marks["credentials"]["self_made"] and marks["provider"] == "Bildwerk GmbH"
    assert 0 < made.details["timings_s"]["mark"] < made.details["timings_s"]["finish"]
    assert len({each["id"] for each in marks["pictures"]}) == 2
    for file, record in zip(made.files, marks["pictures"], strict=True):
        report = verify_picture(file, transport)
        assert report.credentials.state == "trusted" and report.credentials.manifest == record["manifest"]
        assert report.credentials.system == "faceclip-triton tiny-sdxl 0.1.0"
        assert report.label.aigc["ContentProducer"] == "Bildwerk GmbH" and report.label.aigc["ProduceID"] == record["id"]
        assert report.mark.state == "found" and report.mark.mark_id == record["mark_id"] == report.credentials.mark_id


def test_what_the_client_saves_is_the_servers_file(pipe, tmp_path):
    made = pipe("a lighthouse", **QUICK)
    made.save(tmp_path / "result.png")
    made.images[0].save(tmp_path / "pil.png")
    assert (tmp_path / "result.png").read_bytes() == (tmp_path / "pil.png").read_bytes() == made.files[0]
    made.images[0].save(tmp_path / "other.webp")
    report = verify_picture(tmp_path / "other.webp")
    assert (report.credentials.state, report.label.state) == ("none", "found"), "credentials do not survive another format"
    made.images[0].putpixel((0, 0), (1, 2, 3))
    made.images[0].save(tmp_path / "changed.png")
    assert verify_picture(tmp_path / "changed.png").credentials.state == "none"


def test_previews_are_marked_as_far_as_their_size_allows(marking):
    inputs = []
    for name, kind, value in (("prompt", "BYTES", b"x"), ("preview", "BOOL", True), ("num_inference_steps", "INT32", 2),
                              ("image_encoding", "BYTES", b"binary"), ("visible_label", "BYTES", b"en")):  # fmt: skip
        array = np.array([value], np.object_ if kind == "BYTES" else {"BOOL": bool, "INT32": np.int32}[kind])
        inputs.append(grpc.InferInput(name, [1], kind))
        inputs[-1].set_data_from_numpy(array)
    answers = []
    with grpc.InferenceServerClient(marking.url) as client:
        client.start_stream(lambda result, error: answers.append(error or result))
        client.async_stream_infer("faceclip_stream", inputs)
        client.stop_stream()
    previews = [answer.as_numpy("preview_image") for answer in answers]
    previews = [preview[0] for preview in previews if preview is not None]
    assert len(previews) == 2
    for preview in previews:
        report = verify_picture(preview)
        assert (report.credentials.state, report.label.state) == (
            "valid",
            "found",
        ) and "c2pa.edited" in report.credentials.actions


def test_a_label_is_drawn_where_a_request_asks(pipe):
    plain, labelled = (pipe("a lighthouse", seed=1, visible_label=label, **QUICK) for label in ("none", "both"))
    difference = np.abs(np.asarray(plain.images[0], int) - np.asarray(labelled.images[0], int)).max(axis=2)
    assert (difference[:60] > 60).mean() > 0.1 and (difference[100:] > 60).mean() < 0.01
    assert labelled.details["marks"]["pictures"][0]["visible_label"] == "both"


def test_a_photograph_with_credentials_is_named_in_those_of_the_picture(pipe):
    photo = pipe("a face", output_format="JPEG", **{**QUICK, "width": 192}).files[0]
    made = pipe("a lighthouse", face_image=photo, face_aligned=True, **QUICK)
    theirs = made.details["faces"][0]["credentials"]
    assert theirs["generated"] and theirs["manifest"].encode() in made.files[0]


def test_the_model_says_what_is_on_without_a_picture(marking):
    told = marks_of(marking.connection)
    assert told["on"] == ["watermark", "metadata", "credentials"] and len(told["credentials"]["root_sha256"]) == 95


@pytest.mark.parametrize("content", [b"no picture", b"\xff" * 100, b"data:image/png;base64,AAAA"])
def test_what_is_no_picture_is_refused(marking, content):
    wire = grpc.InferInput("picture", [1], "BYTES")
    wire.set_data_from_numpy(np.array([content], np.object_))
    with grpc.InferenceServerClient(marking.url) as client, pytest.raises(InferenceServerException, match="picture: expected"):
        client.infer("faceclip_verify", [wire])


def test_pictures_come_as_base64_too(marking, pipe):
    import base64

    file = pipe("a lighthouse", **QUICK).files[0]
    wire = grpc.InferInput("picture", [1], "BYTES")
    wire.set_data_from_numpy(np.array([base64.b64encode(file)], np.object_))
    with grpc.InferenceServerClient(marking.url) as client:
        report = json.loads(client.infer("faceclip_verify", [wire]).as_numpy("report")[0])
    assert report["found"] and report["credentials"]["state"] == "trusted"


def test_a_picture_saved_again_is_still_known(pipe, transport):
    again = io.BytesIO()
    Image.open(io.BytesIO(pipe("a lighthouse", **QUICK).files[0])).convert("RGB").save(again, "WEBP", quality=90)
    report = verify_picture(again.getvalue(), transport)
    assert (report.credentials.state, report.label.state, report.mark.state) == ("none", "none", "found")


def test_own_keys_are_made_once(marking, folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    from faceclip_serving.contract.placements import CPU

    prepare({"faceclip": CPU}, {"": {"marks_folder": str(folder)}})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


# ------------------------------------------------------------------------------------------------------------------- commands
def test_credentials_init_makes_and_prints_the_root(tmp_path):
    done = command("credentials", "init", "--organisation", "Bildwerk GmbH", "--folder", str(tmp_path / "own"))
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["organisation"] == "Bildwerk GmbH" and told["root_sha256"].count(":") == 31
    assert oct((tmp_path / "own" / "root.key").stat().st_mode & 0o777) == "0o600"
    again = command("credentials", "init", "--organisation", "Other", "--folder", str(tmp_path / "own"))
    assert again.returncode == 1 and "it has some of 'Bildwerk GmbH'" in again.stderr


def test_a_key_that_others_can_read_stops_the_start(repository, tmp_path):
    assert command("credentials", "init", "--organisation", "X", "--folder", str(tmp_path)).returncode == 0
    os.chmod(tmp_path / "certificate.key", 0o644)
    done = command("run", str(repository), "--set", f"marks_folder={tmp_path}")
    assert (
        done.returncode == 1 and "certificate_key: expected a file that its owner alone can read, got mode 0644" in done.stderr
    )
