"""What an operator may set: where a value comes from, and what is refused."""

import json
import re
from dataclasses import fields

import pytest

from export.paths import MODEL_REPOSITORY
from faceclip_serving.contract.errors import InvalidRequest
from faceclip_serving.contract.names import SAMPLER
from faceclip_serving.contract.placements import CPU, placements
from faceclip_serving.contract.settings import SETTINGS, VARIABLE, marks_wanted, read_orders, resolve
from faceclip_serving.contract.variants.sdxl import SDXL
from faceclip_serving.sampling.requests import Limits

BIG, SMALL = placements(SDXL)["datacenter"], placements(SDXL)["8gb"]


def resolved(placement=CPU, config=None, told=None, deployment="faceclip"):
    return resolve(placement, deployment, config, {VARIABLE: json.dumps(told)} if told is not None else {})


def test_a_placement_says_what_nobody_sets():
    assert {BIG.denoiser_rows, SMALL.denoiser_rows} == {16, 2}
    for placement in (BIG, SMALL):
        found = resolved(placement)
        assert found["denoiser_rows"] == placement.denoiser_rows and found["max_active"] == placement.max_active
        assert found.keys() == {setting.name for setting in SETTINGS}


def test_every_default_is_allowed_and_every_limit_of_the_sampler_is_a_setting():
    for setting in SETTINGS:
        default = setting.default(BIG)
        assert setting.parse(default if isinstance(default, str) else json.dumps(default), BIG) == default
    assert {field.name for field in fields(Limits)} <= {setting.name for setting in SETTINGS if SAMPLER in setting.models}


def test_what_a_model_reads_of_its_own_config_stands_there():
    """`settings["..."]` in the code of a model: said by `--set` alone, or in the config.pbtxt of that model too."""
    said = {setting.name: setting.models for setting in SETTINGS}
    read = {
        (name, file.parent.parent.name)
        for file in MODEL_REPOSITORY.glob("*/1/model.py")
        for name in re.findall(r'settings\["(\w+)"\]', file.read_text())
    }
    assert ("batch_head_start_s", "prepare") in read and ("batch_head_start_s", "finish") in read
    assert {(name, model) for name, model in read if said[name] and model not in said[name]} == set()


def test_the_command_line_goes_before_the_config_and_one_deployment_before_all():
    config = {"max_active": "3", "lease_s": "7", "role": "sampler"}
    found = resolved(config=config, told={"": {"max_active": "4", "max_waiting": "1"}, "flux": {"max_waiting": "2"}})
    assert (found["max_active"], found["max_waiting"], found["lease_s"]) == (4, 1, 7.0)
    found = resolved(config=config, told={"": {"max_waiting": "1"}, "flux": {"max_waiting": "2"}}, deployment="flux")
    assert (found["max_active"], found["max_waiting"]) == (3, 2)


def test_orders_are_read_as_they_are_written():
    both = {"faceclip": CPU, "flux": SMALL}
    told = read_orders(both, ["max_active=2", "flux.max_waiting=0", "lease_s=2", "flux.max_waiting=1"])
    assert told == {"": {"max_active": "2", "lease_s": "2"}, "flux": {"max_waiting": "1"}}
    assert resolved(told=told, deployment="flux")["max_waiting"] == 1 and resolved(told=told)["max_waiting"] == 32
    assert read_orders(both, []) == {}


def test_paths_are_made_absolute_where_they_are_written(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    told = read_orders(
        {"faceclip": CPU}, ["certificate=a.pem", "certificate_key=kms.py:sign", "watermark_key=/k", "marks=METADATA,watermark"]
    )
    assert told[""] == {
        "certificate": f"{tmp_path}/a.pem",
        "certificate_key": f"{tmp_path}/kms.py:sign",
        "watermark_key": "/k",
        "marks": "watermark,metadata",
    }
    assert marks_wanted(resolved(told=told)) == ("watermark", "metadata")
    assert read_orders({"faceclip": CPU}, ["certificate_key=our.kms:sign"])[""] == {"certificate_key": "our.kms:sign"}


def test_own_keys_are_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("FACECLIP_MARKS_FOLDER", "/somewhere")
    assert resolved()["marks_folder"] == "/somewhere"
    monkeypatch.delenv("FACECLIP_MARKS_FOLDER")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/config")
    assert resolved()["marks_folder"] == "/config/faceclip-triton/marks"


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (
            "marks=watermarks",
            "marks: expected all, none, or some of watermark, metadata, credentials, got 'watermarks'; did you mean",
        ),
        ("marks=all,none", "marks: expected all, none, or some of"),
        ("watermark_psnr_db=20", "watermark_psnr_db: expected a value from 34.0 to 52.0 dB, got 20.0"),
        ("visible_label=fr", "visible_label: expected one of none, zh, en, both, got 'fr'"),
        ("max_active", "expected NAME=VALUE with a name of max_active"),
        ("speed=3", "expected NAME=VALUE with a name of max_active"),
        ("sdxl.max_active=3", "no deployment 'sdxl', only faceclip, flux"),
        ("max_active=0", "max_active: expected a value from 1 to 256, got 0"),
        ("max_active=many", "max_active: expected a whole number"),
        ("max_active=2.5", "max_active: expected a whole number"),
        ("max_active=true", "max_active: expected a value"),
        ("max_active=", "max_active: expected a whole number"),
        ("denoiser_rows=3", "denoiser_rows: expected a value from 1 to 2, got 3"),  # of flux' placement
        ("lease_s=0.5", "lease_s: expected a value from 2.0 to 600.0 seconds"),
        ("lease_s=NaN", "lease_s: expected a value"),
        ("max_active=" + "[" * 100_000, "max_active: expected"),
    ],
)
def test_what_is_no_setting_is_refused_in_words(order, said):
    with pytest.raises(InvalidRequest, match=said.replace("[", r"\[")):
        read_orders({"faceclip": CPU, "flux": SMALL}, [order])


def test_a_config_that_was_edited_wrongly_is_refused_too():
    with pytest.raises(InvalidRequest, match="max_active: expected"):
        resolved(config={"max_active": "-1"})
