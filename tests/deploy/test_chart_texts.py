"""What a value of the chart says is what its manifests say: texts that mean something else in YAML, and numbers of any size."""

import json
import re

import pytest
import yaml

from .chart import CHART, NAMESPACE, RELEASE, SETS
from .tools import call

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
HARMFUL = (
    "123456789012345678",
    "true",
    "1.50",
    "a, b",
    "a: b",
    "a #b",
    "*x",
    "{{ x }}",
    "[x]",
    "'x'",
    'x" y',
    " x",
    "two\n lines",
)
BEGINNINGS = ("", "--x=", "https://x/", "s3://")
"""With one of them a text is one that its value takes."""
MARK = "markedhere"
ON = {"gateway": {"enabled": True}, "networkPolicy": {"enabled": True}, "autoscaling": {"enabled": True}}
SHORT_OF_TEXT = {"requests": 1, "seconds": 1}
"""Of a quota."""


def texts(schema, text, instead, name=""):
    """Values in which all free text is `instead`, wherever the schema takes `text`; None where there is none."""
    kinds = schema.get("type", ())
    if "array" in kinds:
        inner = texts(schema["items"], text, instead)
        return [{**SHORT_OF_TEXT, **inner} if isinstance(inner, dict) else inner] if inner else None
    if "object" in kinds:
        if isinstance(schema.get("additionalProperties"), dict):
            return {"x": instead}
        made = {key: texts(each, text, instead, key) for key, each in schema.get("properties", {}).items() if key != "global"}
        return {key: value for key, value in made.items() if value is not None} or None
    if name == "jwks":
        return "https://keys.example/set"
    if "string" not in kinds or name == "cpu":  # a quantity
        return None
    fitting = [begin for begin in BEGINNINGS if re.search(schema.get("pattern", ""), begin + text)]
    return fitting[0] + instead if fitting else None


def whole(schema, number):
    """Values in which every whole number is `number`."""
    if schema.get("type") == "object":
        made = {key: whole(each, number) for key, each in schema.get("properties", {}).items()}
        return {key: value for key, value in made.items() if value is not None} or None
    return number if schema.get("type") == "integer" else None


def rendered(base, values, folder):
    """All documents as JSON, with Envoy's configuration read as well, and without digests."""
    on = {name: {**values.get(name, {}), **switch} for name, switch in ON.items()}
    (folder / "values.yaml").write_text(json.dumps({**values, **on}))
    options = ("--namespace", NAMESPACE, "--values", SETS[base], "--values", folder / "values.yaml")
    documents = [each for each in yaml.safe_load_all(call("helm", "template", RELEASE, CHART, *options)) if each]
    for each in documents:
        if "envoy.yaml" in each.get("data", {}):
            each["data"]["envoy.yaml"] = yaml.safe_load(each["data"]["envoy.yaml"])
    return re.sub(r"\b([0-9a-f]{64}|[0-9a-f]{10})\b", "digest", json.dumps(documents))


@pytest.mark.parametrize("base", ["sdxl-datacenter", "s3-keda-monitoring"])
@pytest.mark.parametrize("text", HARMFUL)
def test_a_text_is_rendered_as_it_is(text, base, tmp_path):
    """As a harmless one is, with this in its place."""
    harmless = rendered(base, texts(SCHEMA, text, MARK), tmp_path)
    assert harmless.count(MARK) > 20
    assert rendered(base, texts(SCHEMA, text, text), tmp_path) == harmless.replace(MARK, json.dumps(text)[1:-1])


@pytest.mark.parametrize("base", ["sdxl-datacenter", "s3-keda-monitoring"])
def test_a_large_number_is_rendered_with_its_digits(base, tmp_path):
    settings = dict.fromkeys(SCHEMA["properties"]["settings"]["properties"], 12345678)
    said = rendered(base, {**whole(SCHEMA, 12345678), "settings": settings}, tmp_path)
    assert said.count("12345678") > 20 and not re.findall(r"\d[^\"]{0,9}e\+\d", said)
    said = rendered(base, {"settings": dict.fromkeys(settings, 0.5)}, tmp_path)
    assert said.count('=0.5"') == len(settings)
