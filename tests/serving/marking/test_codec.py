"""Bits of a mark: fixed vectors, and errors that are mended or told."""

import numpy as np
import pytest

from faceclip_serving.marking.codec import Payload

LONG, SHORT = Payload(64, 32), Payload(32, 24)


@pytest.mark.parametrize(
    ("payload", "number", "coded"),
    [
        (LONG, 0x0123456789ABCDEF, "0000077ca6707a2a7fa72bc84e4a01a0cbb6a647b97b460e9196b2219ebcb3cf690f4a6eed3e00"),
        (SHORT, 0x89ABCDEF, "efedc1a0cbb6a647b97b460e91ee62ba703b0aa9b4913e00"),
    ],
)
def test_vectors_that_never_change(payload, number, coded):
    """A change here makes every picture unreadable that was marked before."""
    assert np.packbits(payload.encode(number)).tobytes().hex() == coded
    assert payload.decode(payload.encode(number) * 2.0 - 1) == number


@pytest.mark.parametrize("payload", [LONG, SHORT])
def test_noise_as_strong_as_the_signal_is_mended(payload):
    rng = np.random.default_rng(1)
    for _ in range(20):
        number = int(rng.integers(0, 2**32))
        assert payload.decode(payload.encode(number) * 2.0 - 1 + rng.normal(0, 0.9, payload.coded_bits)) == number


@pytest.mark.parametrize("payload", [LONG, SHORT])
def test_noise_alone_is_no_number(payload):
    rng = np.random.default_rng(2)
    assert all(payload.decode(rng.normal(0, 1, payload.coded_bits)) is None for _ in range(100))


@pytest.mark.parametrize("number", [-1, 2**32])
def test_a_number_that_does_not_fit_is_refused(number):
    with pytest.raises(ValueError, match=r"expected 0 to 2\^32-1"):
        SHORT.encode(number)
