"""What KEDA and Prometheus' operator are given, against their own schemas: TypeScript finds names that they do not know and types, their
generated validators find patterns and ranges."""

import json
import subprocess

import pytest

from .chart import of_kind
from .tools import FETCHED, answer, fetched, tool

MODULES = {
    "ScaledObject": "@kubernetes-models/keda/keda.sh/v1alpha1",
    "ServiceMonitor": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1",
    "PrometheusRule": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1",
}
EVERY_KIND = pytest.mark.parametrize("kind", MODULES)


def document(kind):
    (found,) = of_kind("s3-keda-monitoring", kind)
    return found


def faults(documents, folder):
    """What both find in documents of these kinds; empty where all is well."""
    for kind in MODULES:
        fetched(MODULES[kind].rpartition("/")[0].rpartition("/")[0])
    source = folder / "documents.ts"
    lines = [f'import type {{ I{each["kind"]} }} from "{MODULES[each["kind"]]}";' for each in documents]
    lines += [f"export const a{number}: I{each['kind']} = {json.dumps(each)};" for number, each in enumerate(documents)]
    source.write_text("\n".join(lines))
    (folder / "node_modules").symlink_to(FETCHED / "node_modules")
    typed = answer("tsc", "--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", source)
    code = "".join(
        f'import {{ {each["kind"]} as K{number} }} from "{MODULES[each["kind"]]}";\n' for number, each in enumerate(documents)
    )
    code += "".join(f"new K{number}({json.dumps(each)}).validate();\n" for number, each in enumerate(documents))
    program = folder / "validate.mjs"
    program.write_text(code)
    checked = subprocess.run([tool("node"), program], capture_output=True, text=True, check=False)
    return (typed.stdout if typed.returncode else "") + (checked.stderr if checked.returncode else "")


def test_all_is_as_their_schemas_say(tmp_path):
    assert not faults([document(kind) for kind in MODULES], tmp_path)


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("ScaledObject", '"triggers"', '"trigers"'),
        ("ScaledObject", '"pollingInterval": 15', '"pollingInterval": "15s"'),
        ("ScaledObject", '"metricType": "AverageValue"', '"metricKind": "AverageValue"'),
        ("ServiceMonitor", '"endpoints"', '"endpoint"'),
        ("ServiceMonitor", '"interval": "15s"', '"interval": "15 seconds"'),
        ("PrometheusRule", '"alert": "FaceCLIPSlow"', '"name": "FaceCLIPSlow"'),
        ("PrometheusRule", '"for": "10m"', '"for": "ten minutes"'),
    ],
)
def test_a_planted_fault_is_found(kind, old, new, tmp_path):
    text = json.dumps(document(kind))
    assert old in text
    assert faults([json.loads(text.replace(old, new))], tmp_path)
