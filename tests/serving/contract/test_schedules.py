"""What a sampler's start imports; what schedulers are called."""

import subprocess
import sys

import pytest

from faceclip_serving.contract.schedules import SCHEDULER_SPELLINGS
from faceclip_serving.contract.variants.table import VARIANTS

PROGRAM = """
import sys
from importlib import metadata
of_all, read = metadata.packages_distributions, []
metadata.packages_distributions = lambda: read.append("metadata of all packages") or of_all()
from faceclip_serving.contract.schedules import make_scheduler
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
make_scheduler("EulerDiscreteScheduler", TINY_SDXL.scheduler_config)
print(*({"torch._dynamo", "scipy.stats"} & set(sys.modules)), *read)
assert len(metadata.packages_distributions()) > 10
scheduler = make_scheduler("EulerDiscreteScheduler", TINY_SDXL.scheduler_config, {"use_beta_sigmas": True})
scheduler.set_timesteps(4)
print(len(scheduler.sigmas))
"""


@pytest.mark.proof
def test_what_one_option_needs_is_imported_when_it_is_asked_for():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["", "5", ""]


def test_every_scheduler_is_a_class_of_diffusers_with_a_short_name_of_its_own():
    """The short names are those that web interfaces write."""
    assert SCHEDULER_SPELLINGS == {
        "euler": "EulerDiscreteScheduler",
        "euler_a": "EulerAncestralDiscreteScheduler",
        "dpmpp_2m": "DPMSolverMultistepScheduler",
        "unipc": "UniPCMultistepScheduler",
        "ddim": "DDIMScheduler",
        "lcm": "LCMScheduler",
        "flow_euler": "FlowMatchEulerDiscreteScheduler",
    }
    for variant in VARIANTS.values():
        assert set(variant.schedulers) <= set(SCHEDULER_SPELLINGS.values())
