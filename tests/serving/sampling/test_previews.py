"""Rough pictures: the map is found from any decoder's pictures, and a preview is that map, one pixel per latent cell."""

import numpy as np
import pytest

from faceclip_serving.sampling.previews import PREVIEW_FILE, fit, preview

CHANNELS, SCALE = 4, 2


def decoder(factors, seen):
    """A decoder that is the linear map `factors` [channels + 1, 3] and adds detail within each cell, whose mean is zero."""

    def decode(latents):
        seen.append(latents)
        rgb = np.tensordot(factors[:-1], latents, axes=(0, 1)) + factors[-1][:, None, None, None]
        detail = np.tile([[0.3, -0.1], [-0.3, 0.1]], latents.shape[-2:])
        return np.kron(rgb.transpose(1, 0, 2, 3), np.ones((SCALE, SCALE))) + detail

    return decode


@pytest.mark.filterwarnings("error")
def test_the_map_of_a_linear_decoder_is_found_from_a_few_smooth_pictures():
    factors, seen = np.random.default_rng(1).standard_normal((CHANNELS + 1, 3)), []
    found = fit(decoder(factors, seen), CHANNELS, SCALE, side=8, samples=3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, factors, atol=1e-5)
    assert [latents.shape for latents in seen] == [(1, CHANNELS, 8, 8)] * 3
    assert {latents.dtype.name for latents in seen} == {"float32"}
    for latents in seen:
        blocks = latents.reshape(CHANNELS, 2, 4, 2, 4)
        assert (blocks.std(axis=(2, 4)) < 1e-6).all() and blocks.std(axis=(1, 3)).min() > 1e-3, "smooth, and not flat"


def test_the_same_decoder_gives_the_same_map_and_the_usual_sizes_are_those_of_the_vae():
    seen = []
    decode = decoder(np.eye(CHANNELS + 1, 3), seen)
    np.testing.assert_array_equal(fit(decode, CHANNELS, SCALE), fit(decode, CHANNELS, SCALE))
    assert [latents.shape for latents in seen] == [(1, CHANNELS, 16, 16)] * 8


def test_the_map_lies_in_a_file_that_numpy_names_alike(tmp_path):
    np.save(tmp_path / PREVIEW_FILE, np.ones(2))
    assert (tmp_path / PREVIEW_FILE).is_file(), "np.save adds .npy where it is missing"


def test_a_preview_has_a_pixel_per_cell_rounded_and_within_the_range_of_a_byte():
    factors = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.1, 0.2, 0.3]], np.float32)
    latents = np.zeros((3, 2, 5), np.float32)
    latents[:, 1, 4] = [0.4, -1.0, 5.0]
    picture = preview(factors, latents)
    assert (picture.dtype.name, picture.shape) == ("uint8", (2, 5, 3))
    assert picture[1, 4].tolist() == [128, 0, 255]  # half of 255, rounded up
    assert picture[0, 0].tolist() == [26, 51, 76]
