"""The quick form of `python -m benchmarks chaos`: mixed requests, bad input and hang-ups at once, on a real server."""

import pytest

from benchmarks.chaos.command import chaos


@pytest.mark.proof
def test_everybody_gets_one_right_answer_and_nothing_is_left_behind(repository):
    found = chaos(repository, 150, parts=["storm"])
    assert found["promises_broken"] == [], found["first_faults"]
    assert found["requests"] == 150
    assert {"bad", "good", "impossible"} <= set(found["outcomes"]) and any(
        name.startswith("leaving") for name in found["outcomes"]
    )
