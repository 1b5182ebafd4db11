"""`nano`, in this process: a head that is drawn anew by somebody's photograph becomes theirs, and nothing else changes."""

from functools import partial

import pytest

from benchmarks.measure.inprocess import Pipeline, no_marks
from benchmarks.measure.pictures import decoded
from benchmarks.quality.changes import CHANGED, MADE, measure_changes
from benchmarks.quality.edits import KINDS, SHOWN, WEIGHTS, measure
from export.checkpoint.committed import weights_folder
from export.checkpoint.tokenizers import write_tokenizers
from export.networks.components import build
from export.onnx.parity import torch_run
from export.paths import ROOT
from faceclip_serving.contract.components import components
from faceclip_serving.contract.digest import package_digest
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.request import request_tensors
from faceclip_serving.contract.variants.sdxl import NANO
from faceclip_serving.face.detectors import YuNet
from faceclip_serving.models.finish import finish
from faceclip_serving.models.prepare import prepare
from faceclip_serving.models.prompts import load_tokenizer


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder, digest = tmp_path_factory.mktemp("prepare"), package_digest(ROOT / "faceclip_serving")
    weights = weights_folder(NANO, None)
    write_tokenizers(NANO, weights, folder)
    tokenizers = [load_tokenizer(folder / tokens.tokenizer) for tokens in NANO.tokens]
    stages = {
        "prepare": partial(prepare, NANO, tokenizers, YuNet(), digest),
        "finish": partial(finish, NANO, CPU, digest, no_marks(CPU)),
        **{name: torch_run(build(NANO, name, weights), signature) for name, signature in components(NANO).items()},
    }
    return Pipeline(NANO, 8, stages)


def test_a_head_becomes_that_of_the_person_in_the_photograph(pipeline):
    found, rows = measure(2, lambda **values: decoded(pipeline(request_tensors(**values))["images"][0]), shown=1)
    head, text = found["head"], found["text"]
    assert head["own_similarity"][0] > head["former_similarity"][0] + 0.2 and head["right_person"] == 1.0
    assert head["own_similarity"][0] > text["own_similarity"][0] - 0.2
    assert found.keys() >= set(KINDS) and [len(row) for row in rows] == [len(SHOWN)]


def test_what_a_prompt_changes_within_a_mask_is_judged_beside_the_picture_that_came_and_the_renderers_own(pipeline):
    found = measure_changes(1, lambda **values: decoded(pipeline(request_tensors(**values))["images"][0]), WEIGHTS)
    assert found.keys() == set(CHANGED) and all(each.keys() == set(MADE) for each in found.values())
    for each in found.values():
        assert each["before"]["text_accuracy"][0] == 0.0 and each["rendered"]["text_accuracy"][0] == 1.0
    assert found["garment_colour"]["edited"]["text_accuracy"][0] == 1.0
