"""Conditioning of whole texts: weights about what has no words, chunks side by side, and as many places for all."""

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
def test_weights_scale_the_distance_from_no_words_and_leave_the_rest_to_the_bit(variant):
    weights = np.ones(variant.text_tokens.max_tokens)
    weights[3:6] = 1.5, 0.0, 0.5
    rows, values, made = texts(variant, 3, Encoding([0], [], None), Encoding([1], [weights.tolist()], 2))
    found = made["embeddings"]
    np.testing.assert_array_equal(found[0], rows[0])
    np.testing.assert_array_equal(np.delete(found[1], (3, 4, 5), 0), np.delete(rows[1], (3, 4, 5), 0))
    np.testing.assert_array_equal(found[1][4], rows[2][4])
    np.testing.assert_allclose(found[1][3] - rows[2][3], 1.5 * (rows[1][3] - rows[2][3]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1][5], (rows[1][5] + rows[2][5]) / 2, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(made["pooled"], values["pooled"][:2])


@pytest.mark.parametrize("variant", VALUES, ids=lambda variant: variant.name)
def test_without_encodings_and_with_plain_ones_rows_stay_as_they_are(variant):
    for encodings in ([], [Encoding([i], [], None) for i in range(3)]):
        _, values, made = texts(variant, 3, *encodings)
        for name, array in values.items():
            np.testing.assert_array_equal(made[name], array)


def test_chunks_stand_side_by_side_and_shorter_texts_are_repeated_as_a_whole():
    variant = VARIANTS["tiny-sdxl"]
    rows, values, made = texts(variant, 6, Encoding([0], [], None), Encoding([1, 2], [], None), Encoding([3, 4, 5], [], None))
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
