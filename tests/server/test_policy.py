"""Policies are tried before anything is served."""

import pytest

from faceclip_serving.checks.policy import PolicyError
from faceclip_serving.contract.placements import CPU
from server.policy import try_policies

BOTH = {"faceclip": CPU, "flux": CPU}


def test_the_packages_own_is_fine():
    try_policies(BOTH, {})


def test_each_deployments_policy_is_read_and_its_hooks_are_loaded(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text('[[hooks]]\nname = "mine"\non = ["prompt"]\ncall = "own.py:check"\n')
    with pytest.raises(PolicyError, match=r"hook 'mine': expected a function, .*own\.py:check' cannot be had"):
        try_policies(BOTH, {"flux": {"policy": str(path)}})
    (tmp_path / "own.py").write_text("def check(question): return {'action': 'allow'}\n")
    try_policies(BOTH, {"flux": {"policy": str(path)}})
    with pytest.raises(PolicyError, match="cannot be read"):
        try_policies(BOTH, {"": {"policy": str(tmp_path / "none.toml")}})
