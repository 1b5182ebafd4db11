import time

import numpy as np
import pytest

from faceclip_serving.audit.revoked import Revoked
from faceclip_serving.contract.components import components
from faceclip_serving.contract.names import FACE_ENCODER, TEXT_ENCODER
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.models import encoding_cache
from faceclip_serving.models.encoding_cache import EncodingCache, Forgetting

SIGNATURES = components(TINY_SDXL)


class Encoder:
    """Outputs that depend on every input of a row; counts the rows that it computed."""

    def __init__(self, name):
        self.signature = SIGNATURES[name]
        self.rows = 0

    def __call__(self, arrays):
        per_row = (
            arrays["input_ids"] if "input_ids" in arrays else arrays["aligned_faces"].reshape(len(arrays["aligned_faces"]), -1)
        )
        self.rows += len(per_row)
        values = per_row.sum(axis=1).astype(np.float32)
        if "face_index" in arrays:
            faces = arrays["face_index"][:, 0]
            features = arrays["class_token"].sum(axis=(1, 2)) + arrays["patch_token"].sum(axis=(1, 2, 3))
            values = values + np.where(faces < 0, 1000.0, features[faces]).astype(np.float32)
        return {
            t.name: np.broadcast_to(
                values.reshape(-1, *[1] * (len(t.axes) - 1)), t.shape({"rows": len(values), "faces": len(values)})
            )
            for t in self.signature.outputs
        }


def text(ids, faces, features):
    rng = np.random.default_rng(features)
    sizes = {"faces": 2}
    return {
        "input_ids": np.repeat(np.array(ids, np.int64)[:, None], 77, 1),
        "face_index": np.array(faces, np.int64)[:, None],
        **{t.name: rng.standard_normal(t.shape(sizes)).astype(np.float32) for t in TINY_SDXL.face_features},
    }


def same(left, right):
    return all(np.array_equal(left[name], right[name]) for name in left)


def test_known_rows_are_not_computed_again_and_results_are_the_same():
    encoder = Encoder(TEXT_ENCODER)
    cache = EncodingCache(encoder, encoder.signature, 10**8)
    requests = [text([1, 2], [-1, 0], 0), text([1, 2], [-1, 0], 0), text([1, 3], [-1, 0], 0), text([2, 1], [0, -1], 0)]
    for request in requests:
        assert same(cache(request), Encoder(TEXT_ENCODER)(request))
    assert encoder.rows == 3


@pytest.mark.parametrize(
    "other",
    [text([1], [0], 0), text([2], [0], 0), text([2], [1], 5), text([2], [-1], 5)],
    ids=["ids+face", "ids", "face", "none"],
)
def test_a_row_that_differs_in_anything_is_another_row(other):
    encoder = Encoder(TEXT_ENCODER)
    cache = EncodingCache(encoder, encoder.signature, 10**8)
    cache(text([2], [0], 5))
    assert same(cache(other), Encoder(TEXT_ENCODER)(other))
    assert encoder.rows == 2


def test_the_features_of_other_faces_do_not_matter_to_a_row():
    encoder = Encoder(TEXT_ENCODER)
    cache = EncodingCache(encoder, encoder.signature, 10**8)
    one, other = text([2], [-1], 0), text([2], [-1], 7)
    assert same(cache(one), cache(other))
    assert encoder.rows == 1


def test_it_is_bounded_and_forgets_the_least_recently_used():
    encoder = Encoder(FACE_ENCODER)
    faces = np.random.default_rng(0).random((4, 3, 448, 448), np.float32)
    bytes_per_row = sum(a[0].nbytes for a in encoder({"aligned_faces": faces[:1]}).values())
    encoder.rows = 0
    cache = EncodingCache(encoder, encoder.signature, 2 * bytes_per_row)
    for i in (0, 1, 0, 2, 0, 1):  # 2 pushes 1 out, since 0 was used later
        assert same(cache({"aligned_faces": faces[i : i + 1]}), Encoder(FACE_ENCODER)({"aligned_faces": faces[i : i + 1]}))
    assert encoder.rows == 4
    assert same(cache({"aligned_faces": faces}), Encoder(FACE_ENCODER)({"aligned_faces": faces}))


def test_zero_bytes_switch_it_off():
    encoder = Encoder(TEXT_ENCODER)
    cache = EncodingCache(encoder, encoder.signature, 0)
    for _ in range(2):
        cache(text([1], [0], 0))
    assert encoder.rows == 2


# ------------------------------------------------------------------------------------------------------------- forgetting
def test_a_row_lives_so_long_from_when_it_was_computed_however_often_it_is_used():
    encoder, now = Encoder(TEXT_ENCODER), [0.0]
    cache = EncodingCache(encoder, encoder.signature, 10**8, 60.0, lambda: now[0])
    for now[0], rows in ((0.0, 1), (30.0, 1), (59.9, 1), (60.0, 2), (119.0, 2), (121.0, 3)):
        assert same(cache(text([1], [0], 0)), Encoder(TEXT_ENCODER)(text([1], [0], 0)))
        assert encoder.rows == rows
    cache(text([2], [0], 0))
    now[0] = 181.5
    cache.forget_old()
    assert len(cache) == 0 and cache._bytes == 0 and not cache._made


def test_what_is_too_old_is_freed_though_nobody_asks():
    encoder = Encoder(TEXT_ENCODER)
    cache = EncodingCache(encoder, encoder.signature, 10**8, 0.05)
    cache(text([1], [0], 0))
    assert len(cache) == 1
    forgetting = Forgetting([cache], every_s=0.02)
    until(lambda: len(cache) == 0)
    forgetting.stop()


def test_all_is_forgotten_when_somebody_takes_consent_back_and_for_a_while_nothing_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(encoding_cache, "EMPTY_S", 0.5)
    (tmp_path / "revoked").touch()
    encoder, revoked = Encoder(TEXT_ENCODER), Revoked(tmp_path / "revoked")
    cache = EncodingCache(encoder, encoder.signature, 10**8)
    forgetting = Forgetting([cache], revoked, every_s=0.02)
    cache(text([1], [0], 0))
    time.sleep(0.1)
    assert len(cache) == 1
    for kind in ("consent", "subject"):
        revoked.add(kind, "x")
        until(lambda: len(cache) == 0)
        cache(text([1], [0], 0))  # of a request that was let in before
        until(lambda: len(cache) == 0)
        time.sleep(0.6)
        cache(text([1], [0], 0))
        time.sleep(0.1)
        assert len(cache) == 1
    forgetting.stop()


def test_a_list_that_cannot_be_looked_at_means_that_nothing_is_remembered(tmp_path):
    encoder = Encoder(TEXT_ENCODER)
    cache = EncodingCache(encoder, encoder.signature, 10**8)
    cache(text([1], [0], 0))
    (tmp_path / "file").write_text("")
    forgetting = Forgetting([cache], Revoked(tmp_path / "file" / "revoked"), every_s=0.02)
    until(lambda: len(cache) == 0)
    forgetting.stop()


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_each_call_says_how_many_rows_were_known():
    encoder, told = Encoder(TEXT_ENCODER), []
    cache = EncodingCache(encoder, encoder.signature, 10**8, on_lookup=lambda hits, misses: told.append((hits, misses)))
    for ids in ([1, 2], [1, 3], [1, 3]):
        cache(text(ids, [-1, -1], 0))
    assert told == [(0, 2), (1, 1), (2, 0)]


def test_a_memory_that_is_off_says_nothing():
    encoder, told = Encoder(TEXT_ENCODER), []
    EncodingCache(encoder, encoder.signature, 0, on_lookup=lambda *rows: told.append(rows))(text([1], [-1], 0))
    assert told == []
