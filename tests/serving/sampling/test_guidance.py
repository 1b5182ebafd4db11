import numpy as np
import pytest

from faceclip_serving.contract.request import parse_request
from faceclip_serving.contract.sdxl import TINY_SDXL
from faceclip_serving.sampling.guidance import Chain, branches_needed, chain_at, combine, combine_into, weighted_sum
from tests.serving.contract.test_parameters import raw

U, T, F = "unconditional", "text", "identity"


def chain(has_face=True, step=0, **values):
    return chain_at(parse_request(TINY_SDXL, raw(num_inference_steps=10, **values)), has_face, step)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"guidance_scale": 5.0}, Chain((U, F), (5.0,))),
        ({"guidance_scale": 1.0}, Chain((F,), ())),
        ({"guidance_scale": 0.0}, Chain((F,), ())),
        ({"text_guidance_scale": 7.0, "id_guidance_scale": 2.0}, Chain((U, T, F), (7.0, 2.0))),
        ({"text_guidance_scale": 7.0}, Chain((U, T, F), (7.0, 3.0))),
        ({"text_guidance_scale": 4.0, "id_guidance_scale": 4.0}, Chain((U, F), (4.0,))),
        ({"text_guidance_scale": 7.0, "id_guidance_scale": 0.0}, Chain((U, T), (7.0,))),
        ({"text_guidance_scale": 1.0, "id_guidance_scale": 2.0}, Chain((T, F), (2.0,))),
    ],
)
def test_rows_and_scales_of_each_mode(values, expected):
    assert chain(**values) == expected


def test_without_a_face_every_mode_is_guidance_by_text():
    assert chain(has_face=False, guidance_scale=5.0) == Chain((U, T), (5.0,))
    assert chain(has_face=False, text_guidance_scale=7.0, id_guidance_scale=2.0) == Chain((U, T), (7.0,))
    assert chain(has_face=False, guidance_scale=1.0) == Chain((T,), ())


def test_intervals():
    late = {"guidance_scale": 5.0, "guidance_end": 0.4}
    assert [len(chain(step=i, **late).branches) for i in range(10)] == [2] * 4 + [1] * 6
    early_face = {"guidance_scale": 5.0, "id_start": 0.2, "id_end": 0.5}
    assert [chain(step=i, **early_face).branches[-1] for i in range(10)] == [T] * 2 + [F] * 3 + [T] * 5
    request = parse_request(TINY_SDXL, raw(guidance_scale=1.0))
    assert branches_needed(request, True) == (F,)


def test_formulas():
    u, t, f = np.random.default_rng(0).standard_normal((3, 4, 2, 2)).astype(np.float32)
    np.testing.assert_allclose(combine([u, f], [5.0]), u + 5 * (f - u))
    np.testing.assert_allclose(combine([u, t, f], [7.0, 2.0]), u + 7 * (t - u) + 2 * (f - t), rtol=1e-5)
    assert combine([f], []) is f
    assert weighted_sum([f], [1.0]) is f
    np.testing.assert_allclose(weighted_sum([t, f], [0.25, 0.75]), 0.25 * t + 0.75 * f)


@pytest.mark.parametrize("scales", [(), (5.0,), (3.0, 1.7)])
def test_a_chain_in_place_has_the_same_bits(scales):
    predictions = np.random.default_rng(0).standard_normal((len(scales) + 1, 4, 8, 8)).astype(np.float32)
    out = np.full((4, 8, 8), np.nan, np.float32)
    combine_into(out, predictions, scales)
    np.testing.assert_array_equal(out, combine(predictions, scales))
