"""What a caller is warned of although the request runs: parameters without effect, and scripts that are hardly read."""

import numpy as np
import pytest

from faceclip_serving.contract.parameters import SCALARS, Need
from faceclip_serving.contract.request import parse_request, request_tensors, warn_of_idle
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.models.edit import Edit
from faceclip_serving.models.prepare import needs_met
from faceclip_serving.models.prompts import Chunk, Encoded, prompt_warnings


def idle(faces=0, **values):
    """Names of the parameters that are warned of."""
    arrays = request_tensors(prompt="a portrait", **values)
    request = parse_request(TINY_SDXL, arrays)
    warnings = warn_of_idle(TINY_SDXL, arrays, request, needs_met(request, faces))
    assert all("no effect" in warning for warning in warnings)
    return [warning.partition(":")[0] for warning in warnings]


@pytest.mark.parametrize(
    ("values", "faces", "names"),
    [
        ({"id_guidance_scale": 3.0}, 0, ["id_guidance_scale"]),
        ({"id_guidance_scale": 3.0}, 1, []),
        ({"blend_weight": 0.5, "id_start": 0.2, "id_end": 0.8}, 0, ["blend_weight", "id_start", "id_end"]),
        ({"blend_weight": 0.5, "id_start": 0.2, "id_end": 0.8}, 1, []),
        ({"face_aligned": True}, 0, ["face_aligned"]),
        ({"face_weighting": "quality"}, 1, ["face_weighting"]),
        ({"face_weighting": "quality"}, 2, []),
        ({"negative_prompt": "hat", "guidance_scale": 1.0}, 0, ["negative_prompt"]),
        ({"negative_prompt": "hat", "text_guidance_scale": 1.0}, 1, ["negative_prompt"]),
        ({"negative_prompt": "hat", "guidance_start": 0.5, "guidance_end": 0.5}, 0, ["negative_prompt"]),
        ({"negative_prompt": "hat"}, 0, []),
        ({"guidance_scale": 4.0, "text_guidance_scale": 3.0, "id_guidance_scale": 2.0}, 1, ["guidance_scale"]),
        ({"guidance_scale": 4.0, "id_guidance_scale": 2.0}, 1, []),
        ({"guidance_scale": 1.0, "guidance_start": 0.5}, 1, ["guidance_start"]),
        ({"guidance_start": 0.5}, 0, []),
        ({"strength": 0.5, "padding_mask_crop": 8}, 0, ["strength", "padding_mask_crop"]),
        ({"face_box": [0.0, 0.0, 1.0, 1.0]}, 0, ["face_box"]),
    ],
)
def test_parameters_without_effect_are_named(values, faces, names):
    assert idle(faces, **values) == names


def test_defaults_that_are_sent_are_no_reason_to_warn():
    defaults = {each.name: each.default_of(TINY_SDXL) for each in SCALARS if each.needs}
    assert idle(**{name: value for name, value in defaults.items() if value is not None}) == []


def test_every_need_is_met_by_some_request():
    request = parse_request(TINY_SDXL, request_tensors(prompt="a", mask="face"))
    assert needs_met(request, 2, Edit(request, 0, True, {}, {})) == set(Need)
    bare = parse_request(TINY_SDXL, request_tensors(prompt="a"))
    assert needs_met(bare, 0) == {Need.GUIDANCE, Need.SCALES, Need.NO_TEXT_SCALE}
    ends = parse_request(TINY_SDXL, request_tensors(prompt="a", guidance_end=0.5, num_inference_steps=10))
    assert Need.GUIDANCE in needs_met(ends, 0, Edit(ends, 4, False, {}, {}))
    assert Need.GUIDANCE not in needs_met(ends, 0, Edit(ends, 5, False, {}, {})), "the steps with guidance are not run"


@pytest.mark.parametrize(("prompt", "told"), [("портрет женщины", True), ("a woman at the café, 1950", False), ("", False)])
def test_other_scripts_are_told(prompt, told):
    encoded = Encoded((Chunk(np.zeros(77, np.int64), np.ones(77, np.float32), 5),))
    warnings = prompt_warnings("prompt", encoded, TINY_SDXL.tokens[0], prompt)
    assert [warning.partition(";")[0] for warning in warnings] == ["prompt: the text encoder was trained on English"] * told
