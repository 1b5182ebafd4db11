"""What a sampler's start imports."""

import subprocess
import sys

PROGRAM = """
import sys
from faceclip_serving.contract.schedules import make_scheduler
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
make_scheduler("EulerDiscreteScheduler", TINY_SDXL.scheduler_config)
print(*({"torch._dynamo", "scipy.stats"} & set(sys.modules)))
scheduler = make_scheduler("EulerDiscreteScheduler", TINY_SDXL.scheduler_config, {"use_beta_sigmas": True})
scheduler.set_timesteps(4)
print(len(scheduler.sigmas))
"""


def test_what_one_option_needs_is_imported_when_it_is_asked_for():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["", "5", ""]
