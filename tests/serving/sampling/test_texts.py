"""Conditioning of whole texts: weights of what words change, chunks side by side, and as many places for all."""

import numpy as np
import pytest

from faceclip_serving.contract.components import most_encoded
from faceclip_serving.contract.job import Encoding
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.sampling.networks import encode_texts
from faceclip_serving.sampling.texts import of_texts
from tests.serving.sampling.test_pictures import job

VALUES = list(VARIANTS.values())


def encoded(variant, rows):
    rng = np.random.default_rng(4)
    return {t.name: rng.standard_normal(t.shape({"rows": rows})).astype(np.float32) for t in variant.conditioning}


def texts(variant, rows, *encodings):
    one = job()
    one.encodings = list(encodings)
    values = encoded(variant, rows)
    return values["embeddings"], values, of_texts(variant, one, values)


@pytest.mark.parametrize("variant", VALUES, ids=lambda variant: variant.name)
def test_a_weight_scales_the_difference_that_its_words_make(variant):
    texts_of = [Encoding([0]), Encoding([1], [0.0], [[2]]), Encoding([1], [1.5, 0.5], [[2], [3]])]
    _, values, made = texts(variant, 4, *texts_of)
    for name, rows in values.items():
        plain, without, weighted = made[name]
        np.testing.assert_array_equal(plain, rows[0])
        np.testing.assert_allclose(without, rows[2], atol=1e-5)
        expected = rows[1] + 0.5 * (rows[1] - rows[2]) - 0.5 * (rows[1] - rows[3])
        np.testing.assert_allclose(weighted, expected, atol=1e-5)


def test_what_does_not_see_the_blanks_and_chunks_without_such_words_stay_to_the_bit():
    rows, values, made = texts(VARIANTS["tiny-sdxl"], 3, Encoding([0, 1], [1.5], [[0, 2]]))
    np.testing.assert_array_equal(made["embeddings"][0][: len(rows[0])], rows[0])
    np.testing.assert_array_equal(made["pooled"][0], values["pooled"][0])


@pytest.mark.parametrize("variant", VALUES, ids=lambda variant: variant.name)
def test_without_encodings_and_with_plain_ones_rows_stay_as_they_are(variant):
    for encodings in ([], [Encoding([i]) for i in range(3)]):
        _, values, made = texts(variant, 3, *encodings)
        for name, array in values.items():
            np.testing.assert_array_equal(made[name], array)


def test_chunks_stand_side_by_side_and_shorter_texts_are_repeated_as_a_whole():
    variant = VARIANTS["tiny-sdxl"]
    rows, values, made = texts(variant, 6, Encoding([0]), Encoding([1, 2]), Encoding([3, 4, 5]))
    expected = [[0] * 6, [1, 2] * 3, [3, 4, 5] * 2]
    for found, order in zip(made["embeddings"], expected, strict=True):
        np.testing.assert_array_equal(found, np.concatenate([rows[row] for row in order]))
    np.testing.assert_array_equal(made["pooled"], values["pooled"][[0, 1, 3]])


def test_texts_beyond_one_call_of_the_encoder_are_encoded_in_several():
    variant = VARIANTS["tiny-sdxl"]
    most, calls = most_encoded(variant), []

    def run(arrays):
        calls.append(len(arrays["input_ids"]))
        assert len(arrays["class_token"]) == 2, "faces are of all rows"
        return {"embeddings": arrays["input_ids"] + arrays["face_index"], "pooled": arrays["face_index"]}

    rows = 2 * most + 1
    arrays = {
        "input_ids": np.arange(rows)[:, None] * np.ones((1, 3), int),
        "face_index": np.arange(rows)[:, None] % 2,
        "class_token": np.zeros((2, 4)),
        "patch_token": np.zeros((2, 4)),
    }
    found = encode_texts(variant, run, arrays)
    assert calls == [most, most, 1]
    np.testing.assert_array_equal(found["embeddings"], arrays["input_ids"] + arrays["face_index"])
    np.testing.assert_array_equal(found["pooled"], arrays["face_index"])
