"""Which pictures share the next call of the denoiser."""

import pytest

from faceclip_serving.contract.job import Encoding
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.sampling.pictures import select, start_pictures
from tests.serving.sampling.test_pictures import conditioning, job

SPLIT = {"unconditional": [0], "text": [1], "identity": [2]}


def picture(rows=2, last_tick=-1, height=64, done=False, chunks=1):
    """A picture whose next step takes so many rows: 1 without guidance, 2 with it, 3 with split guidance."""
    scales = {1: {"guidance_scale": 1.0}, 2: {"guidance_scale": 5.0}, 3: {"text_guidance_scale": 5.0, "id_guidance_scale": 2.0}}
    asked = job(SPLIT, seed=1, height=height, **scales[rows])
    asked.encodings = [Encoding([0]), Encoding([1]), Encoding([2] * chunks)]
    [made] = start_pictures(TINY_SDXL, asked, conditioning(1, rows=3))
    assert len(made.chain.branches) == rows
    made.last_tick = last_tick
    made.step = len(made.chains) if done else 0
    return made


@pytest.mark.parametrize(
    ("rows", "most", "chosen"),
    [
        ([2, 2], 4, [0, 1]),
        ([2, 2], 3, [0]),
        ([3, 2, 1], 4, [0, 2]),  # what does not fit lets a smaller one pass
        ([3, 1], 2, [0]),  # the first goes whole, in several calls
        ([1, 1, 1], 2, [0, 1]),
        ([1, 2, 3], 6, [0, 1, 2]),
    ],
)
def test_the_first_is_whole_and_others_join_while_their_rows_fit(rows, most, chosen):
    pictures = [picture(each) for each in rows]
    assert [pictures.index(each) for each in select(pictures, most)] == chosen


def test_who_was_served_longest_ago_goes_first_and_equals_in_the_order_they_came():
    pictures = [picture(last_tick=tick) for tick in (3, 1, 2, 1)]
    assert [pictures.index(each) for each in select(pictures, 8)] == [1, 3, 2, 0]


def test_one_size_a_call_the_one_that_waited_longest_and_nothing_that_is_done():
    pictures = [picture(last_tick=2), picture(last_tick=1, height=128), picture(last_tick=0, done=True)]
    assert select(pictures, 8) == [pictures[1]]
    assert select([pictures[2]], 8) == []
    assert select([], 8) == []


def test_texts_of_one_length_a_call_so_that_a_long_prompt_changes_no_neighbour():
    pictures = [picture(), picture(chunks=3), picture(), picture(chunks=3), picture(chunks=2)]
    assert [pictures.index(each) for each in select(pictures, 16)] == [0, 2]
    assert [pictures.index(each) for each in select(pictures[1:], 16)] == [1, 3]
