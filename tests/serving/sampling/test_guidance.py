import numpy as np
import pytest

from faceclip_serving.contract.request import parse_request
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.sampling.guidance import Chain, branches_needed, chain_at, combine, weighted_sum, with_guidance
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
        ({"guidance_scale": 1.5}, Chain((U, F), (1.5,))),
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


def test_guidance_within_the_matrices_of_steps_is_the_chain():
    """Two registers and noise; chains of every length, one after the other."""
    random = np.random.default_rng(0)
    chains = [Chain((U, T, F), (3.0, 1.7)), Chain((U, F), (5.0,)), Chain((F,), ())]
    steps = random.standard_normal((3, 2, 4)).astype(np.float32)
    registers, predictions, noise = (random.standard_normal((count, 6)).astype(np.float32) for count in (2, 3, 1))
    for step, matrix, chain in zip(steps, with_guidance(steps, chains), chains, strict=True):
        own = predictions[: len(chain.branches)]
        value = combine(list(own), chain.scales)
        others = np.ones((3 - len(own), 6), np.float32)  # whatever an earlier step has left there
        rows = np.concatenate([registers, own[:1], np.diff(own, axis=0), others, noise])
        np.testing.assert_allclose(matrix @ rows, step @ np.stack([*registers, value, *noise]), rtol=1e-4, atol=1e-5)


def test_a_missing_scale_or_weight_is_an_error_and_no_other_picture():
    rows = list(np.ones((3, 2)))
    with pytest.raises(ValueError):
        combine(rows, [5.0])
    with pytest.raises(ValueError):
        weighted_sum(rows, [0.5, 0.5])
