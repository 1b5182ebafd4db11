"""Options and the builder flags that they mean."""

import argparse

import pytest

from export.engine.errors import EngineError
from export.engine.options import Options, add_arguments, builder_flags, from_arguments, workspace_bytes

REMOVED_IN_11 = {"FP16", "BF16", "INT8", "FP8", "INT4", "FP4", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS"}


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        (Options(), ()),
        (Options(refit=True), ("REFIT",)),
        (Options(weight_streaming=True), ("WEIGHT_STREAMING",)),
        (Options(stripped=True), ("STRIP_PLAN", "REFIT_IDENTICAL")),
        (Options(stripped=True, refit=True), ("REFIT", "STRIP_PLAN")),
        (Options(weight_streaming=True, refit=True, stripped=True), ("WEIGHT_STREAMING", "REFIT", "STRIP_PLAN")),
    ],
)
def test_flags(options, flags):
    assert builder_flags(options) == flags
    assert not REMOVED_IN_11 & set(flags)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"hardware": "turing"}, "expected one of none, same-compute-capability, ampere-plus, got 'turing'"),
        ({"optimization_level": 6}, "expected 0 to 5, got 6"),
        ({"workspace_gb": 0.0}, "expected more than 0 GiB, got 0.0"),
    ],
)
def test_a_wrong_option_is_named_with_its_range(values, words):
    with pytest.raises(EngineError, match=words):
        Options(**values)


def test_triton_neither_refits_nor_streams():
    assert Options().for_triton and Options(refit=True).for_triton
    assert not Options(stripped=True).for_triton and not Options(weight_streaming=True).for_triton


def test_the_command_line_reaches_every_option():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert from_arguments(parser.parse_args([])) == Options()
    text = "--refit --stripped --weight-streaming --hardware-compatibility ampere-plus --optimization-level 5 --workspace 1.5"
    found = from_arguments(parser.parse_args(text.split()))
    assert found == Options(True, True, True, "ampere-plus", 5, 1.5)
    assert workspace_bytes(found) == 3 << 29 and workspace_bytes(Options()) is None
