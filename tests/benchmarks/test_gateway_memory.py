"""How growth is read from memory that goes up and down."""

import numpy as np
import pytest

from benchmarks.gateway.load import middle_of_each, steady_slope


@pytest.mark.parametrize("growth", [0.0, 0.5, 7.0], ids=lambda growth: f"{growth} MB per 1000")
def test_growth_is_found_among_ups_and_downs(growth):
    at = np.arange(8000)
    mb = 140 + growth * at / 1000 + 15 * np.random.default_rng(0).random(len(at)) + 8 * np.sin(at / 90)
    middles = middle_of_each(at, mb, 10)
    assert len(middles) == 10
    assert steady_slope(middles) * 10 / 8 == pytest.approx(growth, abs=0.3)


def test_one_jump_is_no_growth():
    assert steady_slope([140, 140, 140, 140, 155, 140, 140, 140]) == 0
