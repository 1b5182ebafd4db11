"""What tells learnt faces from others goes with the face encoder that it is of, from the weights to the models that warn."""

from pathlib import Path

import pytest

from export.checkpoint import committed
from export.onnx.statistics import export_statistics
from export.onnx.wanted import Export
from export.repository.assemble import _copy_statistics
from faceclip_serving.contract.names import DENOISER, FACE_ENCODER, STATISTICS_FILE
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.variants.sdxl import NANO, SDXL, TINY_SDXL
from faceclip_serving.face.familiarity import read_statistics


def there(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_nanos_lie_beside_its_face_encoder_in_every_precision_and_beside_nothing_else(tmp_path):
    export_statistics([Export(NANO, name, p) for name in (FACE_ENCODER, DENOISER) for p in ("fp32", "fp16")], tmp_path)
    assert there(tmp_path) == [f"{p}/{FACE_ENCODER}/{STATISTICS_FILE}" for p in ("fp16", "fp32")]
    for precision in ("fp16", "fp32"):
        assert read_statistics(tmp_path / precision / FACE_ENCODER, NANO).bound > 1


def test_those_of_a_checkpoint_that_is_given_count_and_without_any_none_stay(tmp_path):
    root, checkpoint = tmp_path / "onnx", tmp_path / "checkpoint"
    checkpoint.mkdir()
    file, target = checkpoint / STATISTICS_FILE, root / "fp32" / FACE_ENCODER / STATISTICS_FILE
    wanted = [Export(SDXL, FACE_ENCODER, "fp32", checkpoint)]
    for content in (b"first", b"other"):
        file.write_bytes(content)
        export_statistics(wanted, root)
        assert target.read_bytes() == content
    before = target.stat().st_mtime_ns
    export_statistics(wanted, root)
    assert target.stat().st_mtime_ns == before, "what is the same already is left alone, and so is the repository that has it"
    file.unlink()
    export_statistics(wanted, root)
    assert there(root) == []


@pytest.mark.parametrize("wanted", [Export(TINY_SDXL, FACE_ENCODER), Export(SDXL, FACE_ENCODER, seeded=True)])
def test_stand_ins_have_none(tmp_path, monkeypatch, wanted):
    monkeypatch.setattr(committed, "WEIGHTS", tmp_path / "weights")
    target = tmp_path / "fp32" / FACE_ENCODER / STATISTICS_FILE
    target.parent.mkdir(parents=True)
    target.write_bytes(b"of other weights")
    export_statistics([wanted], tmp_path)
    assert there(tmp_path) == []


def test_a_model_has_them_where_the_face_encoder_has(tmp_path):
    model, bare = tmp_path / "model", tmp_path / "bare"
    model.mkdir(), bare.mkdir()
    _copy_statistics(tmp_path, CPU, bare)
    precision = CPU.components[FACE_ENCODER].precision
    export_statistics([Export(NANO, FACE_ENCODER, precision)], tmp_path)
    _copy_statistics(tmp_path, CPU, model)
    assert read_statistics(model, NANO) is not None and read_statistics(bare, NANO) is None
