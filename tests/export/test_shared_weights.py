"""Weights with two names: a repository that is assembled links to the exported files. Tools of others refuse such files; ours do not."""

import os
import shutil
import stat
import sys
from importlib.util import find_spec

import onnx
import pytest

from export.__main__ import main
from export.quantize.modelopt import _run_modelopt
from faceclip_serving.contract.names import VAE_DECODER
from faceclip_serving.contract.placements import ONNX_FILE, PLAN_FILE, TRT_RTX

needs_rtx = pytest.mark.skipif(
    find_spec(TRT_RTX.package) is None or find_spec("polygraphy") is None,
    reason=f"{TRT_RTX.package} or polygraphy is not on this platform: engines cannot be compiled here",
)


@pytest.fixture
def shared(tiny_fp32, tmp_path):
    """Root of components whose files each have a second name, under both precisions; what they compute in does not matter here."""
    for precision in ("fp32", "fp16"):
        shutil.copytree(tiny_fp32, tmp_path / "onnx" / precision)
    for path in sorted((tmp_path / "onnx").rglob("*")):
        if path.is_file():
            other = tmp_path / "repository" / path.relative_to(tmp_path / "onnx")
            other.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, other)
    return tmp_path / "onnx"


def test_others_refuse_them(shared):
    path = shared / "fp32" / VAE_DECODER / ONNX_FILE
    with pytest.raises((onnx.checker.ValidationError, ValueError), match="hard link"):
        onnx.load(path)


@pytest.mark.proof
@pytest.mark.parametrize(
    "command",
    [
        pytest.param("engine --placement 8gb --sm 89 --component vae_decoder --components ROOT", marks=needs_rtx),
        "forecast --placement 8gb --components ROOT",
        "ranges --component vae_decoder --components ROOT/fp32 --steps 1 --prompt one",
        "picture --precision fp16 --reference fp32 --components ROOT --steps 1 --prompt one",
    ],
    ids=lambda command: command.split()[0],
)
def test_commands_read_them(command, shared, capsys):
    assert main(command.replace("ROOT", str(shared)).split()) == 0, capsys.readouterr().err
    assert all(path.stat().st_nlink == 2 for path in shared.rglob(f"{ONNX_FILE}*"))
    if command.startswith("engine"):
        assert (shared / "fp16" / VAE_DECODER / PLAN_FILE).stat().st_size > 0


def test_what_is_quantised_is_given_to_modelopt_with_one_name(shared, tmp_path):
    """An interpreter that reads its graph with the weights, as ModelOpt begins, and writes it."""
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\n"
        "import sys, onnx\n"
        "given = dict(word[2:].split('=', 1) for word in sys.argv if word.startswith('--') and '=' in word)\n"
        "model = onnx.load(given['onnx_path'])\n"
        "onnx.save(model, given['output_path'], save_as_external_data=True, location='model.onnx.data')\n"
    )
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    source, partial = shared / "fp32" / VAE_DECODER / ONNX_FILE, tmp_path / "made"
    partial.mkdir()
    _run_modelopt(str(python), source, partial, "int8", {}, [])
    written = onnx.load(partial / ONNX_FILE)
    assert len(written.graph.node) == len(onnx.load(source, load_external_data=False).graph.node)
