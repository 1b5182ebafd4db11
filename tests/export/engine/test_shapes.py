"""Optimisation placements follow from the signatures, in every variant, and keep TensorRT's rules."""

import math
from argparse import ArgumentTypeError

import pytest

from export.engine.errors import EngineError
from export.engine.shapes import (
    MAX_ELEMENTS,
    Sizes,
    bounds_document,
    bounds_from,
    engine_bounds,
    narrower,
    parse_size,
    shape_ranges,
)
from faceclip_serving.contract.components import bounds, components
from faceclip_serving.contract.names import COMPONENTS, DENOISER, FACE_ENCODER, TEXT_ENCODER, VAE_DECODER, VAE_ENCODER
from faceclip_serving.contract.placements import placements
from faceclip_serving.contract.tensors import Range
from faceclip_serving.contract.variants.sdxl import SDXL, TINY_SDXL
from faceclip_serving.contract.variants.table import VARIANTS

EVERY = pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)


def ranges(variant, component, rows=8, sizes=Sizes()):  # noqa: B008 - frozen
    return shape_ranges(components(variant)[component], engine_bounds(variant, component, rows, sizes))


@EVERY
@pytest.mark.parametrize("rows", sorted({1, *(placement.denoiser_rows for placement in placements(SDXL).values())}))
def test_every_input_has_a_placement_and_an_axis_has_one_size_in_all_of_them(variant, rows):
    for component in COMPONENTS:
        signature, limits = components(variant)[component], engine_bounds(variant, component, rows)
        found = shape_ranges(signature, limits)
        assert list(found) == [tensor.name for tensor in signature.inputs]
        sizes = [{}, {}, {}]
        for tensor in signature.inputs:
            for collected, shape in zip(sizes, found[tensor.name], strict=True):
                assert len(shape) == len(tensor.axes) and math.prod(shape) <= MAX_ELEMENTS
                for axis, size in zip(tensor.axes, shape, strict=True):
                    assert size == axis if isinstance(axis, int) else collected.setdefault(axis, size) == size
        for axis in sizes[0]:
            low, usual, high = (each[axis] for each in sizes)
            assert low <= usual <= high
            assert (low, high) == (bounds(variant, rows)[component][axis].min, bounds(variant, rows)[component][axis].max)


def test_the_usual_picture_is_the_variants_default_one():
    """1152 x 864 is 144 x 108 cells; the larger side on both axes would tune kernels for a picture that nobody asks for."""
    found = ranges(SDXL, DENOISER)
    assert found["latents"] == ((1, 4, 32, 32), (2, 4, 144, 108), (8, 4, 256, 256))
    assert found["timestep"] == ((1, 1), (2, 1), (8, 1))
    assert found["embeddings"] == ((1, 77, 2048), (2, 77, 2048), (8, 77, 2048))
    assert ranges(SDXL, FACE_ENCODER)["aligned_faces"] == ((1, 3, 448, 448), (1, 3, 448, 448), (4, 3, 448, 448))
    assert ranges(SDXL, TEXT_ENCODER)["input_ids"] == ((1, 77), (2, 77), (7, 77))


def test_one_size_fixes_the_picture_and_not_the_batch():
    found = ranges(SDXL, DENOISER, sizes=Sizes(only=(1024, 768)))
    assert found["latents"] == ((1, 4, 128, 96), (2, 4, 128, 96), (8, 4, 128, 96))


def test_a_static_plan_has_one_shape_in_every_component():
    for component in COMPONENTS:
        for found in ranges(SDXL, component, sizes=Sizes(only=(1024, 768), static=True)).values():
            assert found.min == found.opt == found.max
    assert ranges(SDXL, VAE_DECODER, sizes=Sizes(only=(1024, 768), static=True))["latents"].max == (1, 4, 128, 96)
    assert ranges(SDXL, VAE_ENCODER, sizes=Sizes(only=(1024, 768), static=True))["picture"].max == (1, 3, 1024, 768)


def test_the_largest_size_bounds_both_ends():
    found = ranges(SDXL, DENOISER, sizes=Sizes(largest=(1024, 1024)))
    assert (found["latents"].opt, found["latents"].max) == ((2, 4, 128, 108), (8, 4, 128, 128))
    found = ranges(SDXL, VAE_ENCODER, sizes=Sizes(largest=(1024, 1024)))
    assert found["picture"] == ((1, 3, 256, 256), (1, 3, 1024, 864), (1, 3, 1024, 1024))


@pytest.mark.parametrize("size", [(1000, 1020), (1152, 860), (248, 512), (512, 2056)])
def test_a_size_that_no_request_can_have_is_refused_with_the_range(size):
    for component in (DENOISER, VAE_ENCODER):
        with pytest.raises(EngineError, match=r"(height|width): expected a multiple of 8 from 256 to 2048 pixels, got"):
            engine_bounds(SDXL, component, 8, Sizes(only=size))


def test_bounds_that_contradict_themselves_and_axes_without_any_are_refused():
    signature, limits = components(TINY_SDXL)[DENOISER], dict(bounds(TINY_SDXL, 8)[DENOISER])
    with pytest.raises(EngineError, match=r"denoiser: axis 'rows': expected 1 <= min <= opt <= max, got 2, 1, 8"):
        shape_ranges(signature, {**limits, "rows": Range(2, 1, 8)})
    del limits["latent_width"]
    with pytest.raises(EngineError, match=r"input 'latents' has axes \['latent_width'\] without bounds"):
        shape_ranges(signature, limits)


def test_a_tensor_beyond_what_tensorrt_indexes_is_refused():
    limits = {**bounds(SDXL, 8)[DENOISER], "rows": Range(1, 2, 10_000)}
    with pytest.raises(EngineError, match=r"'latents' may have the shape \[10000, 4, 256, 256\].*--largest"):
        shape_ranges(components(SDXL)[DENOISER], limits)


def test_a_plan_narrower_than_the_server_is_told_by_axis():
    needed = bounds(SDXL, 8)[DENOISER]
    assert narrower(engine_bounds(SDXL, DENOISER, 8), needed) == {}
    found = narrower(engine_bounds(SDXL, DENOISER, 8, Sizes(only=(1152, 864), static=True)), needed)
    assert found["rows"] == "plan 2 to 2, server 1 to 8" and set(found) == {"rows", "latent_height", "latent_width"}


def test_bounds_survive_json():
    limits = engine_bounds(SDXL, DENOISER, 8)
    assert bounds_from(bounds_document(limits)) == limits


def test_sizes_on_the_command_line():
    assert parse_size("1152x864") == parse_size("1152X864") == (1152, 864)
    for text in ("1152", "axb", ""):
        with pytest.raises(ArgumentTypeError):
            parse_size(text)
