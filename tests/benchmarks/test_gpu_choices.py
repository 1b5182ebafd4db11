"""What `gpu-verify` chooses for a card, and what of an export it keeps."""

import argparse
import json
import shutil
from dataclasses import replace
from functools import partial

import pytest

from benchmarks.gpu import verify
from export.engine import machine
from export.engine.build import plan_placements
from export.engine.errors import EngineError
from export.onnx import export as to_onnx
from export.onnx.wanted import Export
from export.paths import WEIGHTS
from faceclip_serving.contract.errors import UserError
from faceclip_serving.contract.names import DENOISER, VAE_DECODER
from faceclip_serving.contract.placements import TENSORRT, TRT_RTX, placements
from faceclip_serving.contract.variants.flux import TINY_FLUX
from faceclip_serving.contract.variants.sdxl import NANO, SDXL, TINY_SDXL
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.models import tensorrt_package
from faceclip_serving.models.tensorrt_package import Card

RTX_3070 = Card("NVIDIA GeForce RTX 3070", "8.6", "580.95.05", 8 * 2**30, 7 * 2**30)
H100 = Card("NVIDIA H100 80GB HBM3", "9.0", "580.95.05", 81559 * 2**20, 81000 * 2**20)


def arguments(*words):
    parser = argparse.ArgumentParser()
    verify.add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
@pytest.mark.parametrize("capability", ["7.5", "8.6", "8.9", "12.0"])
def test_a_card_gets_the_placement_that_uses_most_of_it_and_that_it_computes(variant, capability, monkeypatch):
    """The choice is one that `export machine` finds ready, and none that uses more of the card is."""
    table = {name: each for name, each in placements(variant).items() if name in plan_placements()}
    for gib in (4, 6, 8, 12, 16, 24, 80):
        card = replace(RTX_3070, capability=capability, total_bytes=gib * 2**30, free_bytes=gib * 2**30)
        monkeypatch.setattr(machine, "find_card", lambda gpu, card=card: card)
        found = {
            name: not [each for each in machine.checks(placement.on(TRT_RTX.name)) if each.problem]
            for name, placement in table.items()
        }
        ready = [name for name, fits in found.items() if fits]
        if ready:
            assert table[verify.best_placement(variant, card)].gpu_bytes == max(table[name].gpu_bytes for name in ready)
            assert verify.best_placement(variant, card) in ready
        else:
            with pytest.raises(EngineError, match=f"placement: none of '{variant.name}' is for this card"):
                verify.best_placement(variant, card)
    assert verify.WITHOUT_CARD in table and verify.best_placement(variant, None) == verify.WITHOUT_CARD


@pytest.mark.parametrize(
    ("card", "packages", "expected"),
    [
        (RTX_3070, {"tensorrt", "tensorrt_rtx"}, TRT_RTX),
        (RTX_3070, {"tensorrt"}, TENSORRT),
        (H100, {"tensorrt", "tensorrt_rtx"}, TENSORRT),
        (H100, {"tensorrt_rtx"}, TRT_RTX),
        (None, {"tensorrt", "tensorrt_rtx"}, TRT_RTX),
    ],
)
def test_plans_are_built_by_what_fits_the_card_and_is_installed(card, packages, expected, monkeypatch):
    for module in (verify, tensorrt_package):
        monkeypatch.setattr(module, "find_spec", lambda name: name if name in packages else None)
    assert verify.runtime_for(card) is expected


def test_what_is_asked_for_goes_before_the_card(monkeypatch):
    monkeypatch.setattr(verify, "find_spec", lambda name: name)
    assert verify.chosen_placement(arguments("--variant", "sdxl"), RTX_3070).label == "8gb"
    assert verify.chosen_placement(arguments("--variant", "sdxl"), H100).label == "datacenter"
    asked = arguments("--variant", "sdxl", "--placement", "12gb", "--runtime", "tensorrt")
    assert verify.chosen_placement(asked, RTX_3070).label == "12gb-tensorrt"
    assert verify.chosen_placement(arguments("--placement", "datacenter", "--sm", "89"), H100).label == "datacenter-trt-rtx"


def test_without_a_card_plans_are_for_all_that_take_their_precision():
    assert verify.capabilities(placements(SDXL)["8gb"], None) == (75, 86, 89, 120)
    assert verify.capabilities(placements(TINY_FLUX)["16gb"], None) == (89, 120)
    assert verify.capabilities(placements(SDXL)["6gb-int8w"], None) == (86, 89, 120)
    assert verify.capabilities(placements(SDXL)["8gb"], RTX_3070) == ()


@pytest.fixture
def exports(tmp_path, monkeypatch):
    """Notes what would be exported; `put` writes metadata of a component as if it had been."""
    wanted = []
    monkeypatch.setattr(to_onnx, "export_components", lambda exports, root: wanted.extend(exports) or [])

    def put(export, **changes):
        folder = tmp_path / export.precision / export.component
        folder.mkdir(parents=True, exist_ok=True)
        weights, loras, identity = to_onnx._made_from(to_onnx._settled(export))
        source = {"source": "seeded"} if weights is None else {"source": "checkpoint", "file": weights.name, "given": True}
        document = {"identity": identity, "files": {}, "weights": source, "loras": loras, **changes}
        (folder / "metadata.json").write_text(json.dumps(document))

    return wanted, put


def test_the_export_is_kept_only_if_it_is_the_one_that_would_be_made(exports, tmp_path):
    wanted, put = exports
    eight, only = placements(TINY_SDXL)["8gb"], [VAE_DECODER]
    ask = partial(verify.export_missing, TINY_SDXL, eight, only, tmp_path)
    assert ask(None)["made"] == only
    stand_in = Export(TINY_SDXL, VAE_DECODER, "fp16")
    put(stand_in)
    found = ask(None)
    assert (found["made"], found["there"], found["weights"]) == ([], only, {VAE_DECODER: "seeded"})
    put(stand_in, identity="of older code")
    assert ask(None)["made"] == only
    wanted.clear()
    put(stand_in)
    with pytest.raises(UserError, match="nowhere"):
        ask(tmp_path / "nowhere")
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(WEIGHTS / NANO.name, checkpoint, copy_function=shutil.copy)  # of another time
    put(Export(NANO, VAE_DECODER, "fp16"))
    ask = partial(verify.export_missing, NANO, placements(NANO)["8gb"], only, tmp_path)
    assert ask(checkpoint)["made"] == only and wanted[-1].checkpoint == checkpoint


def test_weights_and_loras_that_were_chosen_stay_where_none_are_named(exports, tmp_path):
    wanted, put = exports
    for variant in (SDXL, TINY_SDXL):
        ask = partial(verify.export_missing, variant, placements(variant)["8gb"], [DENOISER], tmp_path, None)
        for chosen in (
            {"weights": {"source": "checkpoint", "file": "unet.safetensors"}},
            {"loras": [{"file": "style.safetensors", "scale": 0.8}]},
        ):
            put(
                Export(variant, DENOISER, "fp16", seeded=True),
                **{"weights": {"source": "checkpoint", "file": "u", "given": True}, **chosen},
            )
            assert ask()["there"] == [DENOISER] and not wanted
