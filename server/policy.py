"""The policies by which a server's deployments check requests: all are tried before anything is served."""

from __future__ import annotations

import json
from collections.abc import Mapping

from faceclip_serving.checks import policy
from faceclip_serving.checks.hooks import Hook
from faceclip_serving.contract.placements import Placement
from faceclip_serving.contract.settings import VARIABLE, resolve


def try_policies(placements: Mapping[str, Placement], told: Mapping[str, Mapping[str, str]]) -> None:
    """Reads each deployment's policy, and loads its hooks. Raises `PolicyError`. `told`: as `read_orders` returns it."""
    for name, placement in placements.items():
        for spec in policy.of_settings(resolve(placement, name, environment={VARIABLE: json.dumps(told)})).hooks:
            Hook(spec)
