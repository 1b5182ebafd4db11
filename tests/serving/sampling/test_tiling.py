"""Tiles: what one tile alone covers is exact, shares add up, and neither half of a VAE sees more than a tile."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceclip_serving.contract.components import bounds
from faceclip_serving.contract.names import DENOISER, VAE_DECODER, VAE_ENCODER
from faceclip_serving.contract.placements import placements
from faceclip_serving.contract.tensors import Range
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.sampling.tiling import OVERLAP, decode_tiled, encode_tiled, spans, tiled, tiled_encoder

SCALE = 4


def local(latents):
    """A decoder without context: every pixel follows from its own cell. Tiles of it must be the whole decode."""
    assert len(latents) == 1
    picture = latents[:, :3].repeat(SCALE, axis=2).repeat(SCALE, axis=3)
    return 1 / (1 + np.exp(-picture))


def latents(images, height, width):
    return np.random.default_rng(0).standard_normal((images, 4, height, width)).astype(np.float32)


@given(cells=st.integers(1, 300), tile=st.integers(2, 100), scale=st.sampled_from([1, 4, 8]))
def test_tiles_cover_an_axis_overlap_and_share_each_pixel(cells, tile, scale):
    found = spans(cells, tile, scale)
    total = np.zeros(cells * scale)
    for span in found:
        assert len(span.weights) == min(cells, tile) * scale
        assert (span.weights >= 0).all()
        total[span.start * scale : span.start * scale + len(span.weights)] += span.weights
    np.testing.assert_allclose(total, 1, atol=1e-6)
    for left, right in pairwise(found):
        assert left.start + tile - right.start >= max(1, int(tile * OVERLAP))
    assert found[-1].start + len(found[-1].weights) // scale == cells


@pytest.mark.parametrize("size", [(20, 33), (16, 16), (9, 40), (5, 7), (17, 16)])
def test_a_decoder_without_context_gives_the_same_picture(size):
    given_latents = latents(2, *size)
    whole = np.concatenate([local(one[None]) for one in given_latents])
    np.testing.assert_allclose(decode_tiled(local, given_latents, 16, SCALE), whole, atol=1e-6)


def test_what_one_tile_alone_covers_is_that_tile_to_the_bit():
    """A decoder whose picture depends on its tile: away from the seams nothing is mixed."""

    def decode(cells):
        return local(cells) * cells.std()

    given_latents = latents(1, 16, 40)
    picture = decode_tiled(decode, given_latents, 16, SCALE)
    first, second = (span.start for span in spans(40, 16, SCALE)[:2])
    assert first == 0 < second < 16
    alone = np.s_[..., : second * SCALE]
    np.testing.assert_array_equal(picture[alone], decode(given_latents[..., :16])[alone])


def test_a_white_picture_is_no_whiter_in_a_seam():
    """Shares of one are rounded, and may add up to more."""

    def white(cells):
        return np.ones((1, 3, SCALE * cells.shape[2], SCALE * cells.shape[3]), np.float32)

    assert decode_tiled(white, latents(1, 20, 33), 16, SCALE).max() == 1


def test_a_seam_is_a_ramp_and_no_step():
    """Two tiles of different brightness: the passage from one to the other takes the whole overlap."""
    brightness = iter([0.2, 0.6])

    def decode(cells):
        return np.full((1, 3, 16 * SCALE, 16 * SCALE), next(brightness), np.float32)

    row = decode_tiled(decode, latents(1, 16, 28), 16, SCALE)[0, 0, 0]
    steps = np.diff(row)
    assert row[0] == np.float32(0.2) and row[-1] == np.float32(0.6)
    assert steps.min() >= 0
    assert steps.max() <= 0.4 / (4 * SCALE) + 1e-6


def test_the_decoder_sees_tiles_of_one_size_and_a_small_picture_whole():
    seen = []

    def decode(cells):
        seen.append(cells.shape)
        return local(cells)

    decode_tiled(decode, latents(2, 30, 50), 16, SCALE)
    assert set(seen) == {(1, 4, 16, 16)} and len(seen) == 2 * 3 * 4
    seen.clear()
    small = latents(1, 16, 9)
    np.testing.assert_array_equal(decode_tiled(decode, small, 16, SCALE), local(small))
    assert seen == [(1, 4, 16, 9)]


def test_it_is_the_component_to_its_caller():
    run = tiled(lambda arrays: {"image": local(arrays["latents"])}, 16, SCALE)
    assert run({"latents": latents(1, 20, 20)})["image"].shape == (1, 3, 80, 80)


def test_a_decoder_of_another_scale_is_named():
    shapes = r"expected the shape \[1, 3, 128, 128\] for latents \[1, 4, 16, 16\], got \[1, 3, 64, 64\]"
    with pytest.raises(ValueError, match=f"^decoded tile: {shapes}$"):
        decode_tiled(local, latents(1, 20, 20), 16, 8)
    with pytest.raises(ValueError, match=r"^tile: expected at least 2 latent cells, got 1$"):
        spans(20, 1, 8)


def averages(pixels):
    """An encoder without context: every cell follows from its own pixels. Tiles of it must be the whole encoding."""
    assert len(pixels) == 1
    _, _, height, width = pixels.shape
    cells = pixels.reshape(1, 3, height // SCALE, SCALE, width // SCALE, SCALE).mean(axis=(3, 5))
    return {"latent_mean": cells, "latent_std": np.abs(cells[:, :2]) + 1}


def pixels_of(images, height, width):
    return np.random.default_rng(1).random((images, 3, height * SCALE, width * SCALE)).astype(np.float32)


@pytest.mark.parametrize("size", [(20, 33), (16, 16), (9, 40), (5, 7), (17, 16)])
def test_an_encoder_without_context_gives_the_same_latents(size):
    picture = pixels_of(2, *size)
    found = encode_tiled(averages, picture, 16, SCALE)
    for name in ("latent_mean", "latent_std"):
        whole = np.concatenate([averages(one[None])[name] for one in picture])
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], whole, atol=1e-6)


def test_what_one_tile_alone_covers_is_its_encoding_to_the_bit():
    def encode(pixels):
        return {"latent_mean": averages(pixels)["latent_mean"] * pixels.std()}

    picture = pixels_of(1, 16, 40)
    second = spans(40, 16, 1)[1].start
    found, first = encode_tiled(encode, picture, 16, SCALE), encode(picture[..., : 16 * SCALE])
    np.testing.assert_array_equal(found["latent_mean"][..., :second], first["latent_mean"][..., :second])


def test_the_encoder_sees_tiles_of_one_size_and_a_small_picture_whole():
    seen = []

    def encode(pixels):
        seen.append(pixels.shape)
        return averages(pixels)

    encode_tiled(encode, pixels_of(2, 30, 50), 16, SCALE)
    assert set(seen) == {(1, 3, 16 * SCALE, 16 * SCALE)} and len(seen) == 2 * 3 * 4
    seen.clear()
    small = pixels_of(1, 16, 9)
    np.testing.assert_array_equal(encode_tiled(encode, small, 16, SCALE)["latent_mean"], averages(small)["latent_mean"])
    assert seen == [(1, 3, 16 * SCALE, 9 * SCALE)]
    run = tiled_encoder(lambda arrays: averages(arrays["picture"]), 16, SCALE)
    assert run({"picture": pixels_of(1, 20, 20)})["latent_std"].shape == (1, 2, 20, 20)


def test_sides_that_are_not_whole_cells_and_an_encoder_of_another_scale_are_named():
    with pytest.raises(ValueError, match=r"^picture: expected sides in multiples of 4 pixels, got 82 x 80$"):
        encode_tiled(averages, np.zeros((1, 3, 82, 80), np.float32), 16, SCALE)
    with pytest.raises(
        ValueError, match=r"^encoded tile: expected 16 x 16 cells of 'latent_mean' for 128 x 128 pixels, got 32 x 32$"
    ):
        encode_tiled(averages, np.zeros((1, 3, 160, 160), np.float32), 16, 2 * SCALE)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_a_tile_bounds_both_halves_of_the_vae_and_nothing_else(variant):
    tile = 4 * variant.latent_multiple
    whole, limited = bounds(variant, 8), bounds(variant, 8, tile)
    assert {name for name in whole if whole[name] != limited[name]} == {VAE_DECODER, VAE_ENCODER}
    assert tile <= variant.latent_height.max
    assert limited[VAE_ENCODER]["height"].max == tile * variant.latent_scale
    assert whole[VAE_ENCODER]["width"].max == variant.limits.width[1]
    assert limited[VAE_DECODER]["images"] == Range(1, 1, 1)
    assert limited[VAE_DECODER]["latent_height"].max == tile
    assert limited[DENOISER]["latent_height"].max == variant.latent_height.max
    with pytest.raises(ValueError, match="vae_tile: expected a multiple of"):
        bounds(variant, 8, tile + 1 if variant.latent_multiple > 1 else 1)


def test_every_placement_has_a_tile_that_every_variant_can_use():
    for variant in VARIANTS.values():
        for placement in placements(variant).values():
            bounds(placement.narrowed(variant), placement.denoiser_rows, placement.vae_tile)
