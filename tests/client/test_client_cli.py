"""The command, through `main(argv)`, and through the installed script."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from PIL import Image

from faceclip import Progress
from faceclip.cli import main
from faceclip.cli_group import FORM
from faceclip.progress_line import ProgressLine, describe_progress

from .triton_double import VARIANT, TritonDouble

SCRIPT = Path(sysconfig.get_path("scripts")) / "faceclip"


def _generate(server: TritonDouble, output: Path, *arguments: str) -> int:
    return main(["generate", "--server", server.address, "--prompt", "a lighthouse", "-o", str(output), *arguments])


def test_a_picture_is_written_and_its_seed_printed(
    server: TritonDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.png"
    output.write_bytes(b"an older picture")
    assert _generate(server, output, "--seed", "5", "--height", "64", "--width", "72") == 0
    assert Image.open(output).size == (72, 64)
    printed = capsys.readouterr()
    assert printed.out == f"{output}  seed 5\n"
    assert printed.err == ""


def test_every_option_reaches_the_server(server: TritonDouble, tmp_path: Path, photo: bytes) -> None:
    (tmp_path / "a.png").write_bytes(photo)
    (tmp_path / "b.png").write_bytes(photo + b" ")
    options = (
        "--negative blurry --steps 2 --guidance 3.5 --id-guidance 2 --text-guidance 4 --height 64 --width 64 --seed 9 -n 2"
        " --scheduler ddim --aligned --set blend_weight=0.5 --set priority=batch"
    )
    faces = ["--face", str(tmp_path / "a.png"), "--face", str(tmp_path / "b.png")]
    assert _generate(server, tmp_path / "out.webp", *faces, *options.split()) == 0
    (received,) = server.received
    assert list(received.pop("face_images")) == [photo, photo + b" "]
    assert {name: array[0] for name, array in received.items()} == {
        "prompt": b"a lighthouse",
        "negative_prompt": b"blurry",
        "num_inference_steps": 2,
        "guidance_scale": 3.5,
        "id_guidance_scale": 2.0,
        "text_guidance_scale": 4.0,
        "blend_weight": 0.5,
        "priority": b"batch",
        "height": 64,
        "width": 64,
        "seed": 9,
        "num_images_per_prompt": 2,
        "scheduler": b"ddim",
        "face_aligned": True,
        "output_format": b"WEBP",
    }
    assert Image.open(tmp_path / "out-1.webp").format == "WEBP"
    assert not (tmp_path / "out.webp").exists()


def test_a_picture_is_changed(server: TritonDouble, tmp_path: Path, photo: bytes) -> None:
    (tmp_path / "party.png").write_bytes(photo)
    (tmp_path / "mask.png").write_bytes(photo + b" ")
    sent = ["--image", str(tmp_path / "party.png"), "--mask-image", str(tmp_path / "mask.png")]
    call = ["edit", "--server", server.address, "--prompt", "a clown", "-o", str(tmp_path / "out.png"), *sent]
    assert main([*call, "--strength", "0.5", "--face-box", "0", "0.25", "0.5", "1", "--padding-mask-crop", "32"]) == 0
    (received,) = server.received
    assert list(received["image"]) == [photo] and list(received["mask_image"]) == [photo + b" "]
    assert received["face_box"].tolist() == [0, 0.25, 0.5, 1] and received["strength"] == 0.5
    assert received["padding_mask_crop"] == 32 and main([*call[:-2], "--mask", "head"]) == 0
    assert server.received[1]["mask"][0] == b"head"


def test_a_picture_that_is_sent_must_be_there_and_is_never_written_over(
    server: TritonDouble, tmp_path: Path, photo: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "party.png"
    picture.write_bytes(photo)
    call = ["edit", "--server", server.address, "--prompt", "a clown", "--image", str(picture), "-o"]
    assert main([*call, str(picture)]) == 2
    assert "expected another file than the photograph of --image; it would be lost" in capsys.readouterr().err
    assert main([*call, str(tmp_path / "out.png"), "--mask-image", str(tmp_path / "none.png")]) == 2
    assert "--mask-image: expected an image file, got" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["edit", "--prompt", "a clown", "-o", "out.png"])
    assert not server.received and picture.read_bytes() == photo


def test_a_file_of_which_there_is_one_is_not_taken_twice(
    tmp_path: Path, photo: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(photo)
    for flag in ("--image", "--mask-image", "--identity"):
        call = [
            "generate",
            "--prompt",
            "a clown",
            "-o",
            str(tmp_path / "out.png"),
            flag,
            str(tmp_path / "a.png"),
            flag,
            "b.png",
        ]
        with pytest.raises(SystemExit, match="2"):
            main(call)
        assert f"argument {flag}: expected one file, got {tmp_path / 'a.png'} and b.png" in capsys.readouterr().err


@pytest.fixture
def two(tmp_path: Path, photo: bytes) -> list[str]:
    """Two people, of three photographs."""
    for name in ("a.png", "b.png", "c, d.png"):
        (tmp_path / name).write_bytes(photo)
    (tmp_path / "anna.faceid").write_bytes(b"\x89faceid\nrest")
    folder = str(tmp_path)
    return ["--person", f"{folder}/a.png,{folder}/b.png@0,0,0.5,1", "--person", f"{folder}/c\\, d.png @ .5,0,1,1 : a man"]


@pytest.mark.parametrize(
    ("flags", "sent"),
    [
        ([], {}),
        (["--face-index", "0", "2", "1"], {"face_index": [0, 2, 1]}),
        (
            ["--face-boxes", *["0", "0", "1", "1", "0.5", "0", "1", "1", "0", "0", "0.5", "0.5"]],
            {"face_boxes": [0, 0, 1, 1, 0.5, 0, 1, 1, 0, 0, 0.5, 0.5]},
        ),
    ],
)
def test_faces_are_chosen_in_the_photographs_of_people_in_their_order(
    server: TritonDouble, tmp_path: Path, two: list[str], flags: list[str], sent: dict[str, list[float]]
) -> None:
    assert _generate(server, tmp_path / "out.png", *two, *flags) == 0
    (received,) = server.received
    assert len(received["face_images"]) == 3
    assert {name: received[name].tolist() for name in ("face_index", "face_boxes") if name in received} == sent
    assert [each["faces"] for each in json.loads(received["people"][0])] == [[0, 1], [2]]


@pytest.mark.parametrize("flag", ["--face", "--identity"])
def test_the_files_of_people_are_their_own(
    server: TritonDouble, tmp_path: Path, two: list[str], flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _generate(server, tmp_path / "out.png", *two, flag, str(tmp_path / "a.png")) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"faceclip: {flag}: expected none beside --person") and FORM in told and not server.received


def test_a_mask_that_is_not_there_shows_how_a_person_is_written(
    server: TritonDouble, tmp_path: Path, two: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _generate(server, tmp_path / "out.png", "--person", f"{tmp_path / 'a.png'}@0,0,x,1") == 2
    told = capsys.readouterr().err
    assert "--person: expected an image file, got 0,0,x,1; write" in told and FORM in told


def test_only_what_is_given_is_sent(server: TritonDouble, tmp_path: Path) -> None:
    assert _generate(server, tmp_path / "out.jpg") == 0
    assert set(server.received[0]) == {"prompt", "seed", "output_format"}
    assert Image.open(tmp_path / "out.jpg").format == "JPEG"


def test_json_is_one_line(server: TritonDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _generate(server, tmp_path / "out.png", "--json", "--seed", "3", "--images", "2", "--prompt", "a long one") == 0
    (line,) = capsys.readouterr().out.splitlines()
    document = json.loads(line)
    assert document["files"] == [str(tmp_path / "out-0.png"), str(tmp_path / "out-1.png")]
    assert document["seeds"] == [3, 4]
    assert document["warnings"] == ["prompt: longer than the model reads"]
    assert document["details"]["parameters"]["seed"] == 3


def test_warnings_are_printed(server: TritonDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _generate(server, tmp_path / "out.png", "--prompt", "a long one") == 0
    assert capsys.readouterr().err == "faceclip: warning: prompt: longer than the model reads\n"


def test_a_server_without_streaming_will_do(unary_server: TritonDouble, tmp_path: Path) -> None:
    assert _generate(unary_server, tmp_path / "out.png") == 0
    assert (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--height", "7"], 2, "height: expected a multiple of 8"),
        (["--seed", "-1"], 2, "seed: expected an integer"),
        (["--face", "nobody.jpg"], 2, "--face: expected an image file, got nobody.jpg"),
        (["--set", "blend_weight=much"], 2, "blend_weight: expected a number, got 'much'"),
        (["--model", "other"], 2, "no model 'other'"),
        (["--prompt", "crash"], 1, "RuntimeError: boom"),
        (["--prompt", "slow", "--timeout", "0.3"], 1, "no answer within"),
    ],
)
def test_failures_have_a_code_and_leave_no_file(
    server: TritonDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str
) -> None:
    assert _generate(server, tmp_path / "out.png", *arguments) == code
    assert says in capsys.readouterr().err
    assert _generate(server, tmp_path / "out.png", *arguments, "--json") == code
    assert says in json.loads(capsys.readouterr().out)["error"]["message"]
    assert not list(tmp_path.iterdir())


def test_a_bad_output_is_refused_before_the_server_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = ["generate", "--server", "127.0.0.1:1", "--prompt", "x", "-o"]
    with pytest.raises(SystemExit, match="2"):
        main([*nowhere, str(tmp_path / "out.gif")])
    assert ".png, .jpg" in capsys.readouterr().err
    assert main([*nowhere, str(tmp_path / "missing" / "out.png")]) == 2
    assert "expected a folder that exists" in capsys.readouterr().err


def test_status(server: TritonDouble, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--server", server.address]) == 0
    text = capsys.readouterr().out
    for words in (
        f"{server.address}: triton 2.51.0, ready",
        f"variant {VARIANT.name}",
        "num_inference_steps",
        "EulerDiscreteScheduler",
    ):
        assert words in text
    assert main(["status", "--server", server.address, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["reachable"] and document["ready"]
    assert [(served["model"], served["variant"]) for served in document["offered"]] == [("faceclip", VARIANT.name)]
    assert document["offered"][0]["defaults"]["height"] == VARIANT.defaults.height


def test_status_of_a_server_that_is_not_ready(server: TritonDouble, capsys: pytest.CaptureFixture[str]) -> None:
    del server.models["faceclip"]
    server.unready = {"faceclip": "loading failed"}
    assert main(["status", "--server", server.address]) == 1
    text = capsys.readouterr().out
    assert "NOT READY" in text and "not ready loading failed" in text and "no FaceCLIP model is ready" in text


def test_status_without_a_server(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FACECLIP_URL", "127.0.0.1:1")
    assert main(["status"]) == 1
    assert "cannot reach 127.0.0.1:1" in capsys.readouterr().err
    assert main(["status", "--server", "flux"]) == 2


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], ["generate"]):
        with pytest.raises(SystemExit, match="0"):
            main([*command, "--help"])
        text = capsys.readouterr().out
        assert "faceclip generate --face me.jpg --prompt" in text and "exit codes" in text
    assert "An existing output file is replaced" in text


def test_the_installed_command_makes_a_picture(server: TritonDouble, tmp_path: Path) -> None:
    assert SCRIPT.exists(), "install the client first: pip install --editable client"
    command = [str(SCRIPT), "generate", "--server", server.address, "--prompt", "x", "-o", "out.png", "--header", "k: v"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("out.png  seed ")
    assert Image.open(tmp_path / "out.png").size == (VARIANT.defaults.width, VARIANT.defaults.height)
    assert server.metadata[0]["k"] == "v"


def test_a_reader_that_goes_away_is_not_an_accident(server: TritonDouble) -> None:
    command = [str(SCRIPT), "status", "--server", server.address]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert (process.stderr.read(), process.wait(30)) == ("", 1)
    process.stderr.close()


@pytest.mark.parametrize("stream", [True, False])
def test_ctrl_c_cancels_the_request(stream: bool, tmp_path: Path) -> None:
    server = TritonDouble(stream=stream)
    command = [sys.executable, "-m", "faceclip", "generate", "--server", server.address, "--prompt", "slow", "-o", "out.png"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        assert server.steps_sent.wait(30)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[1] == "faceclip: cancelled\n"
        assert process.returncode == 130
        assert server.cancelled.wait(5)
    finally:
        process.kill()
        server.stop()


@pytest.mark.timeout(20)
def test_progress_is_drawn_on_a_terminal_only() -> None:
    paper = io.StringIO()
    with ProgressLine(paper) as line:
        line.update(Progress(1, 2))
    assert paper.getvalue() == ""
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal:
        with ProgressLine(terminal) as line:
            line.update(Progress(3, 4))
            line.drawn.wait(5)
        drawn = ""
        while "3/4 steps" not in drawn or not drawn.endswith("\r\033[K"):  # the line is cleared in the end
            drawn += os.read(leader, 4096).decode()
    os.close(leader)


def test_what_the_progress_line_says() -> None:
    assert describe_progress(None, 1.25, 1) == "/ 1.2 s"
    assert describe_progress(Progress(12, 24), 3.44, 0) == f"[{'#' * 12}{'-' * 12}] 12/24 steps  3.4 s"
    assert describe_progress(Progress(30, 24), 3.0, 0).startswith(f"[{'#' * 24}]")


@pytest.mark.parametrize(
    ("output", "arguments", "told"),
    [
        ("folder.png", [], "expected the name of a file, it is a folder"),
        ("nothing/out.png", [], "expected a folder that exists and may be written to"),
        ("numbered.png", ["-n", "2"], "numbered-1.png: expected the name of a file, it is a folder"),
        ("me.png", ["--face", "me.png"], "expected another file than the photograph"),
        ("me.png", ["--face", "linked.png"], "expected another file than the photograph"),
        ("out.png", ["--set", "prompt=y"], "this one is --prompt"),
        ("out.png", ["--set", "face_images=y"], "this one is --face"),
        ("out.png", ["--set", "output_format=JPEG"], "this one is decided by the ending of -o"),
    ],
)
def test_an_output_that_cannot_be_is_told_before_a_request_is_sent(
    output: str,
    arguments: list[str],
    told: str,
    server: TritonDouble,
    tmp_path: Path,
    photo: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("folder.png", "numbered-1.png"):
        Path(folder).mkdir()
    Path("me.png").write_bytes(photo)
    Path("linked.png").symlink_to("me.png")
    assert _generate(server, Path(output), *arguments) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1 and not server.received
    assert Path("me.png").read_bytes() == photo


def test_a_full_disk_leaves_the_older_picture_whole(server: TritonDouble, tmp_path: Path) -> None:
    """In a process of its own, whose files may have so many bytes only."""
    output = tmp_path / "out.png"
    output.write_bytes(b"old")
    script = (
        "import resource, sys; from faceclip.cli import console; resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10)); console()"
    )
    arguments = ["generate", "--server", server.address, "--prompt", "x", "-o", str(output)]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == f"faceclip: [Errno 27] File too large: '{output}'"
    assert output.read_bytes() == b"old" and list(tmp_path.iterdir()) == [output]


def test_a_terminal_without_utf_8_is_no_error(server: TritonDouble, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "faceclip", "generate", "--server", server.address, "--prompt", "ein Künstler"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run([*command, "-o", str(tmp_path / "Bücher.png")], capture_output=True, env=environment)
    assert done.returncode == 0 and b"B\\xfccher.png" in done.stdout
    assert (tmp_path / "Bücher.png").exists()


def test_a_reader_who_has_left_is_told_nothing(server: TritonDouble, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "faceclip", "generate", "--server", server.address, "--prompt", "x", "--quiet"]
    process = subprocess.Popen([*command, "-o", str(tmp_path / "out.png")], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 1 and (tmp_path / "out.png").exists()


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out.startswith("faceclip-client ")
