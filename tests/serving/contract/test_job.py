"""A job between processes: it arrives as it was sent, or is refused by a model of other code."""

import time

import pytest

from faceclip_serving.contract.job import Job
from faceclip_serving.contract.request import parse_request
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from tests.serving.contract.test_parameters import raw

MADE, OTHER = "a" * 64, "b" * 64


def job(**more):
    request = parse_request(TINY_SDXL, raw(seed=1, scheduler_options='{"use_karras_sigmas": true}', id_guidance_scale=2.0))
    return Job(request, {"unconditional": [0], "identity": [1, 2]}, [0.25, 0.75], "place", 12.5, MADE, **more)


def test_a_job_arrives_as_it_was_sent():
    sent = job(faces=[{"score": 0.5}], prompt_tokens={"clip": 7}, warnings=["dim"], clock={"begun": 1.5}, sampling={"steps": 4})
    tensor = sent.encode()
    assert (tensor.dtype.name, tensor.shape) == ("object", (1,))
    assert Job.decode(tensor, MADE) == sent


def test_a_new_job_knows_nothing_of_what_comes_later_and_shares_it_with_no_other():
    new = job()
    assert new.id == ""
    assert (new.faces, new.prompt_tokens, new.warnings, new.clock, new.sampling) == ([], {}, [], {}, {})
    new.warnings.append("dim")
    assert job().warnings == []


def test_the_audit_log_is_told_all_checks_and_what_a_refusal_adds():
    one = job(audit={"references": ["a"]}, checks=[{"check": "prompt"}], consent="record")
    assert one.for_audit() == {"consent": "record", "references": ["a"], "checks": [{"check": "prompt"}]}
    more = {"code": "policy.minor", "checks": [{"check": "photographs"}]}
    assert one.for_audit(more) == {
        "consent": "record",
        "references": ["a"],
        "checks": [{"check": "prompt"}, {"check": "photographs"}],
        "code": "policy.minor",
    }
    assert more["checks"] == [{"check": "photographs"}]


def test_a_stamp_is_the_time_of_the_clock_that_all_processes_share():
    stamped = job()
    before = time.monotonic()
    stamped.stamp("begun")
    assert before <= stamped.clock["begun"] <= time.monotonic()


def test_a_job_of_other_code_is_refused_with_both_digests_and_the_cure():
    with pytest.raises(RuntimeError, match=r"\(job aaaaaaaaaaaa, this model bbbbbbbbbbbb\): assemble the repository again"):
        Job.decode(job().encode(), OTHER)
