"""What diffusers users do out of habit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from faceclip import FaceCLIPPipeline

from .triton_double import TritonDouble


@pytest.mark.parametrize(
    "habit",
    [
        lambda pipe: pipe.enable_attention_slicing(),
        lambda pipe: pipe.enable_attention_slicing("max"),
        lambda pipe: pipe.enable_model_cpu_offload(),
        lambda pipe: pipe.enable_model_cpu_offload(gpu_id=0),
        lambda pipe: pipe.enable_sequential_cpu_offload(),
        lambda pipe: pipe.enable_vae_tiling(),
        lambda pipe: pipe.enable_vae_slicing(),
        lambda pipe: pipe.enable_xformers_memory_efficient_attention(),
    ],
)
def test_memory_switches_warn_that_the_server_decides(pipe: FaceCLIPPipeline, habit: Callable[[Any], Any]) -> None:
    with pytest.warns(UserWarning, match="no effect on a remote pipeline; .*server's") as warned:
        assert habit(pipe) is None
    assert warned[0].filename == __file__, "the warning points at the caller"


def test_to_returns_the_pipeline(pipe: FaceCLIPPipeline) -> None:
    with pytest.warns(UserWarning, match=r"to\(\)"):
        assert pipe.to("cuda") is pipe


def test_a_precision_is_taken_with_a_warning(server: TritonDouble) -> None:
    with pytest.warns(UserWarning, match="torch_dtype=") as warned:
        FaceCLIPPipeline.from_pretrained(server.address, torch_dtype="float16").close()
    assert warned[0].filename == __file__


def test_the_progress_bar_is_explained(pipe: FaceCLIPPipeline) -> None:
    with pytest.warns(UserWarning, match="callback_on_step_end"):
        pipe.set_progress_bar_config(disable=True)


def test_a_scheduler_cannot_be_assigned(pipe: FaceCLIPPipeline) -> None:
    with pytest.raises(AttributeError, match="argument of each call"):
        pipe.scheduler = "EulerDiscreteScheduler"
    with pytest.raises(AttributeError, match="argument of each call"):
        _ = pipe.scheduler
