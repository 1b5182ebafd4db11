"""Options, and what excludes what."""

import argparse

import pytest

from export.engine.errors import EngineError
from export.engine.options import Options, add_arguments, from_arguments
from faceclip_serving.contract.placements import TENSORRT, TRT_RTX


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"hardware": "turing"}, "expected one of none, same-compute-capability, ampere-plus, got 'turing'"),
        ({"optimization_level": 6}, "expected 0 to 5, got 6"),
        *(({"workspace_gb": float(wrong)}, f"a finite number of GiB above 0, got {wrong}") for wrong in ("0.0", "nan", "inf")),
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
    assert found.workspace_bytes == 3 << 29 and Options().workspace_bytes is None
    assert [Options(hardware=name).hardware_level for name in ("none", "ampere-plus")] == ["NONE", "AMPERE_PLUS"]


@pytest.mark.parametrize("options", [Options(refit=True), Options(stripped=True), Options(hardware="ampere-plus")])
def test_what_needs_the_card_is_not_compiled_ahead_of_time(options):
    options.require_for(TENSORRT)
    with pytest.raises(EngineError, match=r"runtime 'trt-rtx': .* need the card, and `--runtime tensorrt`"):
        options.require_for(TRT_RTX)
    Options(weight_streaming=True).require_for(TRT_RTX)
