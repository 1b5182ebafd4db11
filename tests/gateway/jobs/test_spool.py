"""What waits comes back as it was asked; the same request has the same digest, another has another."""

from dataclasses import field, make_dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.drawing import Drawing
from gateway.jobs.kept.spool import Spool, digest

from .drawn import drawing

FILES = st.lists(st.binary(max_size=20), max_size=3)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2**52) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
DRAWINGS = st.builds(
    Drawing,
    model=st.none() | st.text(max_size=5),
    prompt=st.text(max_size=10),
    photos=FILES,
    image=st.none() | st.binary(max_size=20),
    mask=st.none() | st.binary(max_size=20),
    parameters=st.dictionaries(st.text(min_size=1, max_size=5), PLAIN, max_size=3),
    request_id=st.just("id"),
    tenant=st.text(max_size=3),
    priority=st.sampled_from(["interactive", "batch"]),
    timeout_s=st.floats(0.1, 100),
    previews=st.booleans(),
    identities=FILES,
    people_masks=FILES,
)


@given(DRAWINGS)
def test_what_is_kept_is_read_as_it_was(tmp_path_factory, asked):
    spool = Spool(tmp_path_factory.mktemp("spool"))
    spool.keep("job_1", asked)
    assert spool.read("job_1") == asked


@given(DRAWINGS, DRAWINGS)
def test_digests_are_the_same_for_the_same_request_alone(first, second):
    assert (digest(first) == digest(second)) == (first == replace(second, timeout_s=first.timeout_s))


def test_a_digest_is_of_files_and_not_of_what_the_caller_did_not_send():
    for changed in ({"request_id": "other"}, {"timeout_s": 5.0}, {"steps": False}, {"warnings": ["style: has no effect here"]}):
        assert digest(drawing()) == digest(drawing(**changed)), changed
    assert digest(drawing()) != digest(drawing(photos=[b"other"]))
    assert digest(drawing(), "a") != digest(drawing(), "b")


def test_a_digest_stays_over_versions():
    """Jobs of the version before are known by it for days: change it with the number of the store alone."""
    later = make_dataclass(
        "Later", [("new", list, field(default_factory=list)), ("other", str, None)], bases=(Drawing,), frozen=True
    )
    asked = later(**vars(drawing(image=b"picture")))
    assert digest(asked) == digest(drawing(image=b"picture"))
    assert digest(drawing()) == "bd4f7e7f5dd4d3d791b06dd0f80a90085c780142c23f35fcf2796521d2850f70"


def test_files_are_for_the_owner_alone_and_deleted(tmp_path):
    spool = Spool(tmp_path / "waiting")
    spool.keep("job_1", drawing())
    assert (tmp_path / "waiting").stat().st_mode & 0o77 == 0
    assert (tmp_path / "waiting" / "job_1").stat().st_mode & 0o77 == 0
    spool.remove("job_1")
    spool.remove("job_1")
    with pytest.raises(FileNotFoundError):
        spool.read("job_1")
