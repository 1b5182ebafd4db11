"""The chart, rendered by helm over sets of values."""

import functools
from pathlib import Path

import yaml

from .tools import ROOT, answer, call

CHART = ROOT / "deploy" / "helm" / "faceclip"
SETS = {path.stem: path for path in sorted((ROOT / "deploy" / "helm" / "values").glob("*.yaml"))}
"""Name -> the file. Together they use every part of the chart."""
RELEASE, NAMESPACE = "draw", "faces"


@functools.cache
def text(values: str, *options: str) -> str:
    """What `helm template` writes for a set. `options`: more of helm's, e.g. --set=replicas=3."""
    return call("helm", "template", RELEASE, CHART, "--namespace", NAMESPACE, "--values", SETS[values], *options)


def refusal(values: str, *options: str) -> str:
    """What helm says of values that it does not take."""
    done = answer("helm", "template", RELEASE, CHART, "--values", SETS[values], *options)
    assert done.returncode, "helm took these values"
    return done.stderr


def documents(values: str, *options: str) -> list[dict]:
    return [each for each in yaml.safe_load_all(text(values, *options)) if each]


def one(values: str, kind: str, name: str = "server", *options: str) -> dict:
    """The only document of a kind and name; `name` without the release's."""
    (found,) = (
        each for each in documents(values, *options) if (each["kind"], each["metadata"]["name"]) == (kind, f"{RELEASE}-{name}")
    )
    return found


def of_kind(values: str, kind: str, *options: str) -> list[dict]:
    return [each for each in documents(values, *options) if each["kind"] == kind]


def pods(values: str, *options: str) -> dict[str, dict]:
    """Component -> the specification of its pods."""
    owners = [each for each in documents(values, *options) if each["kind"] in ("Deployment", "Job")]
    templates = [each["spec"]["template"] for each in owners]
    return {each["metadata"]["labels"]["app.kubernetes.io/component"]: each["spec"] for each in templates}


def containers(pod: dict) -> list[dict]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def server(values: str, *options: str) -> dict:
    """The container that serves."""
    (found,) = pods(values, *options)["server"]["containers"]
    return found


def envoy(values: str, name: str = "envoy", *options: str) -> dict:
    """Envoy's configuration, from its ConfigMap."""
    return yaml.safe_load(one(values, "ConfigMap", name, *options)["data"]["envoy.yaml"])


def write(folder: Path, values: str, *options: str) -> Path:
    path = folder / f"{values}.yaml"
    path.write_text(text(values, *options))
    return path
