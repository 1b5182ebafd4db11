"""Who is unlike all that a model has learnt is told so, by a real server, wherever features of a face come from."""

import pytest

from benchmarks.measure.pictures import png
from benchmarks.measure.running import PLAIN, serving
from export.paths import ROOT
from faceclip import Person
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.variants.sdxl import NANO
from training.pictures.dataset import scene_of
from training.world.people import sample_identity
from training.world.render import render

ASTRONAUT = ROOT / "examples" / "astronaut.jpg"
PROMPT, QUICK = "A woman wearing a blue shirt, in a library.", {"num_inference_steps": 2, "seed": 1}
UNLIKE = "unlike all that this model has learnt"


@pytest.fixture(scope="module")
def nano():
    with serving(NANO, CPU, settings=PLAIN) as (_, connected):
        yield connected


@pytest.fixture(scope="module")
def drawn():
    """Somebody whom training never drew, as a whole picture."""
    number = 200_001
    return png(render(sample_identity(number), scene_of(number, 2), 256).image)


def warned(result):
    """What the warnings are about, in order."""
    return [each.partition(":")[0] for each in result.warnings if UNLIKE in each]


def test_a_photograph_is_warned_of_once_by_its_number_and_a_drawn_test_person_is_not(nano, drawn):
    assert warned(nano(PROMPT, face_image=drawn, **QUICK)) == []
    assert warned(nano(PROMPT, face_image=ASTRONAUT, **QUICK)) == ["face_images[0]"]
    both = {"face_images": [drawn, ASTRONAUT], **QUICK}
    assert warned(nano(PROMPT, **both)) == ["face_images[1]"]
    *_, streamed = nano.stream(PROMPT, **both)
    assert warned(streamed) == ["face_images[1]"]
    assert warned(nano(PROMPT, **QUICK)) == []


def test_each_of_several_people_is_told_of(nano, drawn):
    people = [Person(drawn, (0, 0, 0.5, 1)), Person(ASTRONAUT, (0.5, 0, 1, 1))]
    result = nano(PROMPT, people=people, width=256, **QUICK)
    assert warned(result) == ["face_images[1]"]
    assert result.images[0].size == (256, 128), "a portrait's width for each"


def test_an_identity_is_told_of_when_it_is_made_and_when_it_is_used(nano, drawn):
    astronaut = nano.identity(ASTRONAUT)
    assert [each.partition(":")[0] for each in astronaut.warnings if UNLIKE in each] == ["face_images[0]"]
    assert warned(nano(PROMPT, identity=astronaut, **QUICK)) == ["identity"]
    assert warned(nano(PROMPT, identity=nano.identity(drawn), **QUICK)) == []


def test_a_variant_without_statistics_warns_of_nobody(pipe):
    assert warned(pipe(PROMPT, face_image=ASTRONAUT, height=64, width=64, **QUICK)) == []
