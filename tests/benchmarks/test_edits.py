"""`nano`, in this process: a head that is drawn anew by somebody's photograph becomes theirs, and nothing else changes."""

import pytest

from benchmarks.measure.pictures import decoded
from benchmarks.quality.changes import CHANGES, MADE, measure_changes
from benchmarks.quality.edits import KINDS, SHOWN, WEIGHTS, measure
from export.checkpoint.committed import weights_folder
from faceclip_serving.contract.request import request_tensors
from faceclip_serving.contract.variants.sdxl import NANO
from tests.benchmarks.in_torch import pipeline_of


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return pipeline_of(NANO, tmp_path_factory.mktemp("prepare"), weights_folder(NANO, None))


@pytest.mark.proof
def test_a_head_becomes_that_of_the_person_in_the_photograph(pipeline):
    found, rows = measure(2, lambda **values: decoded(pipeline(request_tensors(**values))["images"][0]), shown=1)
    head, text = found["head"], found["text"]
    assert head["own_similarity"][0] > head["former_similarity"][0] + 0.2 and head["right_person"] == 1.0
    assert head["own_similarity"][0] > text["own_similarity"][0] - 0.2
    assert found.keys() >= set(KINDS) and [len(row) for row in rows] == [len(SHOWN)]


@pytest.mark.proof
def test_what_a_prompt_changes_within_a_mask_is_judged_beside_the_picture_that_came_and_the_renderers_own(pipeline):
    found = measure_changes(1, lambda **values: decoded(pipeline(request_tensors(**values))["images"][0]), WEIGHTS)
    assert found.keys() == set(CHANGES) and all(each.keys() == set(MADE) for each in found.values())
    for each in found.values():
        assert each["before"]["text_accuracy"][0] == 0.0 and each["rendered"]["text_accuracy"][0] == 1.0
    assert found["garment_colour"]["edited"]["text_accuracy"][0] == 1.0
