"""Every placement of every family, served by a real server: emulated where its card is not here, within its own bounds."""

from contextlib import ExitStack

import pytest

from benchmarks.placements.cases import CASES, all_served, cancels, refuses_larger, require_alike
from export.onnx.wanted import PRECISIONS
from faceclip.status import server_status
from faceclip_serving.contract.flux import TINY_FLUX
from faceclip_serving.contract.placements import CPU, placements
from faceclip_serving.contract.sdxl import TINY_SDXL
from faceclip_serving.contract.variants import VARIANTS

FAMILIES = (TINY_SDXL, TINY_FLUX)
PLACED = [(variant.name, name) for variant in FAMILIES for name in placements(variant)]
EVERYWHERE = pytest.mark.parametrize(("variant", "placement"), PLACED, ids=["-".join(each) for each in PLACED])


def test_the_families_are_all_there_are():
    assert {type(variant.architecture) for variant in FAMILIES} == {type(variant.architecture) for variant in VARIANTS.values()}


@pytest.fixture(scope="module")
def served(repository, tmp_path_factory):
    """(variant, placement) -> it, on a server; one server at a time, since each has some 80 processes."""
    open_now, found = {}, ExitStack()

    def of(variant, placement):
        if variant not in open_now:
            found.close()
            open_now.clear()
            open_now[variant] = found.enter_context(all_served(VARIANTS[variant], tmp_path_factory.mktemp(variant)))
        return open_now[variant][placement]

    with found:
        yield of


@pytest.fixture(scope="module")
def pictures(served):
    """(variant, placement) -> the picture of each case, made when first asked for."""
    made = {}

    def of(variant, placement):
        key = (variant, placement)
        if key not in made:
            made[key] = {name: case.run(served(*key)) for name, case in CASES.items()}
        return made[key]

    return of


@EVERYWHERE
def test_every_kind_of_request_is_served(pictures, variant, placement):
    """The server is up, so the probe's guided request with a face was served before."""
    assert pictures(variant, placement).keys() == CASES.keys()


@EVERYWHERE
def test_one_step_beyond_the_largest_side_is_refused_and_a_cancelled_stream_leaves(served, variant, placement):
    refuses_larger(served(variant, placement))
    cancels(served(variant, placement))


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if case.sides is None])
def test_a_picture_does_not_depend_on_how_many_rows_a_call_takes(pictures, case):
    """`8gb` and `12gb` of SDXL take the halves of guidance one after the other, others together with those of other requests."""
    of = placements(TINY_SDXL)
    near = require_alike({name: pictures(TINY_SDXL.name, name)[case] for name in of}, of)
    assert {"12gb", "16gb"} <= near.keys()


@EVERYWHERE
def test_the_server_tells_what_is_emulated(served, variant, placement):
    found = served(variant, placement)
    real = placements(VARIANTS[variant])[placement].components
    on_cards = {name for name, execution in real.items() if execution.runtime.instance_kind == "KIND_GPU"}
    (offered,) = [each for each in server_status(found.pipe._transport).offered if each.model == found.pipe.config.model]
    assert offered.placement == placement and offered.emulated.keys() == on_cards
    for name in on_cards:
        assert offered.emulated[name].endswith(f"for {real[name].precision} on {real[name].runtime.name}")


def test_an_emulated_placement_keeps_all_but_the_runtime():
    for variant in VARIANTS.values():
        for placement in placements(variant).values():
            emulated = placement.emulate()
            assert (emulated == placement) == (placement == CPU)
            assert emulated.label == (placement.name if placement == CPU else f"{placement.name}-emulated")
            for name, real in placement.components.items():
                there = emulated.components[name]
                assert there.precision == real.precision
                assert there == real if real.runtime.instance_kind == "KIND_CPU" else there.stands_for == real
                assert emulated.remembered_bytes(name) == placement.remembered_bytes(name)
            narrowed = (placement.narrowed(variant), emulated.narrowed(variant))
            assert narrowed[0] == narrowed[1]


def test_a_precision_without_a_file_is_replaced_and_told():
    placement = placements(TINY_FLUX)["16gb"]
    foreign = {name: each.precision for name, each in placement.components.items() if each.precision not in PRECISIONS}
    assert foreign == {"denoiser": "fp8"}
    told = placement.emulate({"denoiser": "fp16"}).emulated["denoiser"]
    assert told == "fp16 on ort-cpu for fp8 on tensorrt"
