"""Everything that follows from the table of parameters: files that are up to date, ranges that are told and obeyed."""

import contextlib
import inspect
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from export.paths import ROOT
from export.repository import interface as interface_command
from export.repository.interface import rendered
from faceclip import AsyncFaceCLIPPipeline, FaceCLIPPipeline
from faceclip.cli import build_parser
from faceclip.parameters import OPTIONS
from faceclip.request import GenerateOptions
from faceclip_serving.contract.errors import InvalidRequest
from faceclip_serving.contract.parameters import FILES, PARAMETERS, PREVIEW, SCALARS, interface
from faceclip_serving.contract.request import parse_request, reference_photos, request_tensors
from faceclip_serving.contract.schedules import make_scheduler
from faceclip_serving.contract.variants.table import VARIANTS

NUMBERS = [
    (variant, parameter.name)
    for variant in VARIANTS.values()
    for parameter in SCALARS
    if "min" in interface(variant)["parameters"][parameter.name]
]


@pytest.mark.parametrize("path", rendered(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_committed_follows_from_the_declarations(path):
    assert path.read_text() == rendered()[path], "write it again: python -m export interface"


def told(variant, name):
    return interface(variant)["parameters"][name]


@pytest.mark.parametrize(("variant", "name"), NUMBERS, ids=lambda value: getattr(value, "name", value))
def test_the_range_that_is_told_is_the_range_that_is_obeyed(variant, name):
    may = told(variant, name)
    step = may.get("multiple", 1 if may["dtype"].startswith("INT") else 1e-3)
    ends = {"guidance_start": {"guidance_end": 1.0}, "id_start": {"id_end": 1.0}, "guidance_end": {"guidance_start": 0.0},
            "id_end": {"id_start": 0.0}}.get(name, {})  # fmt: skip
    for value in (may["min"], may["max"]):
        assert getattr(parse_request(variant, request_tensors(prompt="a", **ends, **{name: value})), name) == value
    largest = np.iinfo(np.int32 if may["dtype"] == "INT32" else np.int64).max
    for value in (may["min"] - step, may["max"] + step, math.nan):
        if may["dtype"].startswith("INT") and (math.isnan(value) or value > largest):
            continue
        with pytest.raises(InvalidRequest, match=f"^{name}: expected .*{may['min']}.*{may['max']}"):
            parse_request(variant, request_tensors(prompt="a", **ends, **{name: value}))


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_choices_defaults_and_counts_that_are_told_are_obeyed(variant):
    for parameter in SCALARS:
        may = told(variant, parameter.name)
        for choice in may.get("choices", []):
            for spelling in (choice, choice.lower(), choice.upper()):
                wanted = parse_request(variant, request_tensors(prompt="a", **{parameter.name: spelling}))
                assert getattr(wanted, parameter.name) == choice
        if "default" in may:
            left_out = parse_request(variant, request_tensors(prompt="a"))
            assert getattr(left_out, parameter.name) == may["default"]
        if "max_characters" in may:
            with pytest.raises(InvalidRequest, match=f"^{parameter.name}: at most {may['max_characters']} characters"):
                parse_request(variant, request_tensors(**{"prompt": "a", parameter.name: "x" * (may["max_characters"] + 1)}))
    most = told(variant, "face_images")["max_items"]
    assert len(reference_photos(variant, request_tensors(face_images=[b"\xff"] * most))) == most
    with pytest.raises(InvalidRequest, match=f"^face_images: at most {most} "):
        reference_photos(variant, request_tensors(face_images=[b"x"] * (most + 1)))
    assert [name for name, may in interface(variant)["parameters"].items() if may.get("required")] == ["prompt"]


def test_every_parameter_is_told_with_a_meaning():
    for variant in VARIANTS.values():
        assert list(interface(variant)["parameters"]) == [each.name for each in (*PARAMETERS, PREVIEW)]
        assert all(may["doc"] for may in interface(variant)["parameters"].values())


def test_every_parameter_reaches_the_client_its_docstring_and_its_command_line():
    """But for what the client gives in a way of its own."""
    names = {each.name for each in (*PARAMETERS, PREVIEW)} - {"image_encoding"}
    assert names <= {"prompt", *GenerateOptions.__annotations__}
    assert names - {"prompt", "people", *(each.name for each in FILES)} == {option.name for option in OPTIONS}
    for pipeline in (FaceCLIPPipeline, AsyncFaceCLIPPipeline):
        text = inspect.getdoc(pipeline.__call__)
        assert all(f"{option.name}: {option.doc}" in text for option in OPTIONS)
    by_other_means = {
        "output_format": "-o",
        "preview": "streams show a line",
        "original_prompt": "of what the client translates",
    }
    for option in OPTIONS:
        assert option.flags or option.name in by_other_means
        for flag in option.flags:
            count = option.values or 3  # 0: any number
            value = [] if option.type is bool else ["2"] * count
            found = build_parser().parse_args(["generate", "--prompt", "a", "-o", "a.png", flag, *value])
            wanted = option.type(2) if option.values == 1 else [option.type(2)] * count
            assert getattr(found, option.name) == (True if option.type is bool else wanted)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_entries_of_scheduler_options_that_are_told_are_obeyed(variant):
    entries = told(variant, "scheduler_options")["entries"]
    assert "use_karras_sigmas" in entries
    for name, may in entries.items():
        values = may.get("choices") or [may[end] for end in ("min", "max") if end in may] or [True, False]
        for value in values:
            wanted = parse_request(variant, request_tensors(prompt="a", scheduler_options=json.dumps({name: value})))
            assert wanted.scheduler_options == {name: value}
            made = []
            for scheduler in told(variant, "scheduler")["choices"]:
                with contextlib.suppress(InvalidRequest):
                    made.append(make_scheduler(scheduler, variant.scheduler_config, {name: value}))
            assert made, f"{name}: {value} is told, and every scheduler of {variant.name} refuses it"
        for wrong in ("no such value", [may["max"] + 1] if "max" in may else 7):
            with pytest.raises(InvalidRequest, match=f"^scheduler_options: {name}: expected"):
                parse_request(variant, request_tensors(prompt="a", scheduler_options=json.dumps({name: wrong})))


def test_a_rendering_quotes_what_it_is_given(monkeypatch):
    hostile = replace(SCALARS[0], name="quoted", doc='how "crisp" | so to say; a \\ too', default=None, short=())
    monkeypatch.setattr(interface_command, "PARAMETERS", (*PARAMETERS, hostile))
    scope = {}
    exec(compile(interface_command.client(), "parameters.py", "exec"), scope)
    (option,) = [option for option in scope["OPTIONS"] if option.name == "quoted"]
    assert 'How "crisp" | so to say; a \\ too' in option.doc
    (row,) = [line for line in interface_command.document().splitlines() if line.startswith("| `quoted`")]
    assert row.replace("\\|", "").count("|") == 7
