"""What is larger than the machine is refused before it starts; a component holds its own part of a shared checkpoint."""

import pytest
import torch

from export import memory
from export.checkpoint import CheckpointError, load_part
from export.components import build
from export.faceclip.face_t5 import FaceT5Encoder
from export.memory import OutOfMemoryError, free_bytes, require_memory
from export.weights import fill_seeded
from faceclip_serving.flux_variants import FLUX, TINY_FLUX
from faceclip_serving.signatures import DENOISER, FACE_ENCODER, TEXT_ENCODER

FACES = "encoder_2.face_encoder."


@pytest.mark.parametrize(("component", "needs"), [(DENOISER, "47.6 GB"), (TEXT_ENCODER, "25.1 GB")])
def test_full_size_says_what_it_needs(monkeypatch, component, needs):
    monkeypatch.setattr(memory, "free_bytes", lambda: 20_000_000_000)
    with pytest.raises(
        OutOfMemoryError, match=f"component '{component}' of variant 'flux': .*{needs} .*20.0 GB of memory are free"
    ):
        build(FLUX, component)


def test_the_face_encoder_needs_its_own_weights_only(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 10**6)
    with pytest.raises(OutOfMemoryError, match=r"its 256 million weights take 1.0 GB"):
        build(FLUX, FACE_ENCODER)


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
