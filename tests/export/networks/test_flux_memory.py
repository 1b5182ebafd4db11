"""What is larger than the machine is built without its weights, or refused in time; a component holds its part of a checkpoint."""

from types import SimpleNamespace

import pytest
import torch

from export.checkpoint import memory
from export.checkpoint.errors import CheckpointError
from export.checkpoint.memory import OutOfDiskError, OutOfMemoryError, free_bytes, require_memory
from export.checkpoint.read import load_part
from export.checkpoint.seeded import fill_seeded
from export.networks.components import build
from export.networks.faceclip.face_t5 import FaceT5Encoder
from export.onnx.export import export_component
from export.onnx.wanted import Export
from faceclip_serving.contract.names import DENOISER, FACE_ENCODER, VAE_DECODER
from faceclip_serving.contract.variants.flux import FLUX, TINY_FLUX

FACES = "encoder_2.face_encoder."


def test_the_largest_network_is_built_in_little_memory(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 2_000_000_000)
    module = build(FLUX, DENOISER)
    assert sum(tensor.numel() for tensor in module.parameters()) == 11_901_408_320
    assert sum(tensor.untyped_storage().nbytes() for tensor in module.parameters()) < 100_000_000


def test_what_is_held_whole_says_what_it_needs(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 10**6)
    with pytest.raises(
        OutOfMemoryError, match=r"component 'vae_decoder' of variant 'flux': its \d+ million weights take 0.3 GB"
    ):
        build(FLUX, VAE_DECODER)


def test_a_file_that_will_not_fit_is_refused_before_the_work(monkeypatch, tmp_path):
    monkeypatch.setattr(memory.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(OutOfDiskError, match=r"component 'face_encoder' of variant 'tiny-flux': its file takes 0.0 GB"):
        export_component(Export(TINY_FLUX, FACE_ENCODER, "fp16"), tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_free_memory_is_that_of_the_machine(monkeypatch, tmp_path):
    found = free_bytes()
    assert found is not None and 2**26 < found < 2**45
    require_memory("a network", [torch.empty(10, device="meta")])
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "none")
    assert free_bytes() is None
    require_memory("a network", [torch.empty(2**50, device="meta")])


@pytest.fixture
def checkpoint(tmp_path):
    encoder = FaceT5Encoder(TINY_FLUX.architecture)
    fill_seeded(encoder)
    (tmp_path / "model").mkdir()
    torch.save(encoder.state_dict(), tmp_path / "model" / "face_t5_encoder.pt")
    return tmp_path


def test_a_checkpoint_gives_the_same_component_as_its_own_weights(checkpoint):
    faces = torch.rand(1, 3, 448, 448, generator=torch.Generator().manual_seed(0))
    loaded, seeded = build(TINY_FLUX, FACE_ENCODER, checkpoint), build(TINY_FLUX, FACE_ENCODER)
    with torch.no_grad():
        for one, other in zip(loaded(faces), seeded(faces), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-6)  # memory at other addresses sums in another order
    assert not any(tensor.is_meta for tensor in loaded.state_dict().values())


def test_loading_a_part_gives_no_memory_to_the_rest_but_still_checks_it(checkpoint):
    with torch.device("meta"):
        encoder = FaceT5Encoder(TINY_FLUX.architecture)
    load_part(encoder, checkpoint, "face_t5_encoder", FACES)
    assert {name for name, tensor in encoder.state_dict().items() if not tensor.is_meta} == {
        name for name in encoder.state_dict() if name.startswith(FACES)
    }
    with torch.device("meta"):
        other = FaceT5Encoder(FLUX.architecture)
    with pytest.raises(CheckpointError, match=r"not known to the network|of another shape|missing"):
        load_part(other, checkpoint, "face_t5_encoder", FACES)
