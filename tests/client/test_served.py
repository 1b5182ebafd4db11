from __future__ import annotations

import json

import pytest

from faceclip import InvalidRequestError, ModelConfig, ModelNotFoundError, ProtocolError
from faceclip.served import choose_model, describe

INTERFACE = json.dumps(
    {
        "parameters": {
            "height": {"dtype": "INT32", "default": 192, "min": 64, "max": 512, "multiple": 8, "doc": "pixels"},
            "prompt": {"dtype": "BYTES", "required": True, "max_characters": 10000, "doc": "what the picture shows"},
            "scheduler": {
                "dtype": "BYTES",
                "default": "EulerDiscreteScheduler",
                "choices": ["EulerDiscreteScheduler"],
                "doc": "",
            },
        }
    }
)


def _config(name: str, variant: str | None, interface: str = INTERFACE) -> ModelConfig:
    return ModelConfig(name, {"prompt": "BYTES"}, {} if variant is None else {"variant": variant, "interface": interface})


SEVERAL = [
    _config("faceclip", "tiny-sdxl"),
    _config("faceclip_stream", "tiny-sdxl"),
    _config("big", "flux"),
    _config("prepare", None),
]


def test_the_interface_document_is_read() -> None:
    served = describe(_config("faceclip", "tiny-sdxl"))
    assert (served.model, served.variant, served.inputs) == ("faceclip", "tiny-sdxl", {"prompt": "BYTES"})
    assert served.defaults == {"height": 192, "scheduler": "EulerDiscreteScheduler"}
    assert served.limits["height"] == {"min": 64, "max": 512, "multiple": 8}
    assert served.limits["prompt"] == {"max_characters": 10000}
    assert served.schedulers == ["EulerDiscreteScheduler"]


@pytest.mark.parametrize("interface", ["", "[]", "{", '{"parameters": 3}', '{"parameters": {"height": 3}}'])
def test_a_broken_interface_document_is_a_protocol_error(interface: str) -> None:
    with pytest.raises(ProtocolError, match="model 'faceclip', parameter 'interface'"):
        describe(_config("faceclip", "tiny-sdxl", interface))


def test_models_are_found_by_variant_and_by_name() -> None:
    assert choose_model("box:1", SEVERAL, None, "flux").model == "big"
    assert choose_model("box:1", SEVERAL, None, "tiny-sdxl").model == "faceclip"
    assert choose_model("box:1", SEVERAL, "big", None).variant == "flux"
    assert choose_model("box:1", SEVERAL[2:], None, None).model == "big"


@pytest.mark.parametrize(("model", "variant"), [(None, "nano"), ("nano", None), ("big", "tiny-sdxl"), ("prepare", None)])
def test_what_is_missing_is_named_with_what_there_is(model: str | None, variant: str | None) -> None:
    with pytest.raises(ModelNotFoundError) as raised:
        choose_model("box:1", SEVERAL, model, variant)
    for words in ("box:1", model or variant or "", "'faceclip' (variant tiny-sdxl)", "'big' (variant flux)"):
        assert words in str(raised.value)
    assert "prepare'" not in str(raised.value).partition("it offers")[2]


def test_several_candidates_are_not_guessed_among() -> None:
    with pytest.raises(InvalidRequestError, match="choose one by model="):
        choose_model("box:1", SEVERAL, None, None)
    with pytest.raises(InvalidRequestError, match="variant 'flux'"):
        choose_model("box:1", [*SEVERAL, _config("copy", "flux")], None, "flux")


def test_a_server_without_such_models_says_so() -> None:
    with pytest.raises(ModelNotFoundError, match="no FaceCLIP model; it offers no ready model"):
        choose_model("box:1", [_config("resnet", None)], None, None)
