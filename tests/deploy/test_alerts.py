"""Alerts, the dashboard and the autoscaler's queries: read by Prometheus' own tool, tried on series, and about metrics that there are."""

import json
import re
import subprocess

import pytest
import yaml

from server.fleet.envoy.bootstrap import RETRIES

from .chart import CHART, NAMESPACE, RELEASE, SETS, of_kind, one
from .tools import ROOT, answer, call, tool

VALUES = "s3-keda-monitoring"
SERIES = {"job": f"{RELEASE}-server", "namespace": NAMESPACE}
METRIC = re.compile(r"faceclip_[a-z_]+")


def groups():
    return one(VALUES, "PrometheusRule")["spec"]["groups"]


def alerts():
    return {each["alert"]: each for group in groups() for each in group["rules"]}


def panels():
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
    return {each["title"]: [target["expr"] for target in each["targets"]] for each in dashboard["panels"]}


def queries():
    (scaled,) = of_kind(VALUES, "ScaledObject")
    return {each["name"]: each["metadata"]["query"] for each in scaled["spec"]["triggers"]}


def write_rules(folder, expressions=()):
    """The release's rules, and expressions as rules."""
    extra = [{"record": f"expression:{number}", "expr": each} for number, each in enumerate(expressions)]
    path = folder / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [*groups(), {"name": "more", "rules": extra}]}))
    return path


# ------------------------------------------------------------------------------------------------------------------- their form
def test_prometheus_reads_all_rules_queries_and_panels(tmp_path):
    shown = [each.replace("$__rate_interval", "1m") for panel in panels().values() for each in panel]
    assert "SUCCESS" in call("promtool", "check", "rules", write_rules(tmp_path, [*queries().values(), *shown]))


@pytest.mark.parametrize(
    "planted", ["sum(rate(faceclip_ticks_total[5m])", "rate(faceclip_ticks_total)", "histogram_quantile(0.9)"]
)
def test_a_planted_fault_is_found(planted, tmp_path):
    assert answer("promtool", "check", "rules", write_rules(tmp_path, [planted])).returncode


# -------------------------------------------------------------------------------------------------------- without the operator
PAGE = (ROOT / "docs" / "kubernetes.md").read_text()


def test_the_scrape_that_the_docs_show_is_of_whom_alerts_are_about(tmp_path):
    """All servers: one that drains or has died is not ready, and must be heard of."""
    (text,) = re.findall(r"```yaml\n(scrape_configs:.*?)```", PAGE, re.DOTALL)
    (tmp_path / "prometheus.yml").write_text(text)
    assert "SUCCESS" in call("promtool", "check", "config", tmp_path / "prometheus.yml")
    (job,) = yaml.safe_load(text.replace("sdxl", RELEASE).replace("faces", NAMESPACE))["scrape_configs"]
    told = {each["target_label"]: each.get("replacement") for each in job["relabel_configs"]}
    assert job["job_name"] == SERIES["job"] and told == {"namespace": NAMESPACE, "pod": None}
    ((found,),) = (each["names"] for each in job["dns_sd_configs"])
    service = one(VALUES, "Service", found.removeprefix(f"{RELEASE}-").removesuffix(f".{NAMESPACE}.svc"))["spec"]
    assert service["clusterIP"] == "None" and service["publishNotReadyAddresses"], "a name of each server, ready or not"
    pod = one(VALUES, "Deployment")["spec"]["template"]
    assert service["selector"].items() <= pod["metadata"]["labels"].items()
    ports = {each["containerPort"] for each in pod["spec"]["containers"][0]["ports"] if each["name"] == "metrics"}
    assert ports == {each["port"] for each in job["dns_sd_configs"]}


def test_the_operators_monitor_scrapes_each_server_once():
    selector = one(VALUES, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    chosen = [each for each in of_kind(VALUES, "Service") if selector.items() <= each["metadata"]["labels"].items()]
    assert [each["metadata"]["name"] for each in chosen] == [SERIES["job"]]


def test_the_rules_are_had_as_a_file_by_the_command_that_the_docs_show(tmp_path):
    (command,) = re.findall(r"```\n(helm template .*?)```", PAGE, re.DOTALL)
    command = command.replace("helm", tool("helm"), 1).replace("template sdxl", f"template {RELEASE}")
    command = command.replace("my-values.yaml", str(SETS["s3-keda-monitoring"])).replace(
        "sdxl-rules.yaml", str(tmp_path / "rules.yaml")
    )
    subprocess.run(["sh", "-c", command], cwd=ROOT, check=True)
    assert yaml.safe_load((tmp_path / "rules.yaml").read_text())["groups"] == groups()
    assert "SUCCESS" in call("promtool", "check", "rules", tmp_path / "rules.yaml")


# ------------------------------------------------------------------------------------------------------------------- what they are of
def test_every_metric_is_one_that_the_docs_tell(server_metrics):
    for name, expressions in {
        **panels(),
        **{name: [each["expr"]] for name, each in alerts().items()},
        "keda": queries().values(),
    }.items():
        for metric in METRIC.findall(" ".join(expressions)):
            assert re.sub(r"_(bucket|sum|count)$", "", metric) in server_metrics, f"{name}: {metric}"


@pytest.fixture
def server_metrics():
    table = (ROOT / "docs" / "serve.md").read_text().partition("## Metrics")[2].partition("\n## ")[0]
    return set(METRIC.findall(table))


def test_every_rule_and_query_is_of_this_release_alone():
    for expression in [*(each["expr"] for each in alerts().values()), *queries().values()]:
        for metric in re.findall(r"(?:faceclip_[a-z_]+|up)(?=[{\[ )]|$)(\{[^}]*\})?", expression):
            assert all(f'{label}="{value}"' in metric for label, value in SERIES.items()), expression


def test_every_alert_says_what_to_do_where_the_docs_do():
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    for name, alert in alerts().items():
        assert alert["annotations"]["runbook"] == f"docs/kubernetes.md#{name.lower()}"
        assert f"\n### {name}\n" in page
        assert alert["annotations"]["summary"].endswith(".") and alert["labels"]["severity"] in ("critical", "warning")


def test_the_dashboard_shows_what_the_autoscaler_wants():
    shown = " ".join(panels()["Servers"]).replace('namespace="$namespace",job="$release-server"', "S")
    wanted = queries()["arrivals"].replace(f'job="{RELEASE}-server",namespace="{NAMESPACE}"', "S")
    assert wanted in shown
    assert len(of_kind(VALUES, "ConfigMap")) == 2  # Envoy's, and this
    assert json.loads(one(VALUES, "ConfigMap", "dashboard")["data"][f"{RELEASE}-faceclip.json"])


def test_a_request_that_envoy_sends_again_counts_once():
    divisor = re.compile(r'reason="full"\}\[2m\]\)\) / (\d+)')
    found = divisor.findall(
        " ".join([queries()["arrivals"], *(each["expr"] for each in alerts().values()), *panels()["Servers"]])
    )
    assert len(found) == 8 and set(map(int, found)) == {1 + RETRIES}


# -------------------------------------------------------------------------------------------------------------------- tried
def test_alerts_and_queries_on_series(tmp_path):
    """The cases of alerts.yaml: each alert fires where it shall, and not where all is well; queries give the numbers that they mean."""
    write_rules(tmp_path, queries().values())
    cases = (ROOT / "tests" / "deploy" / "alerts.yaml").read_text()
    (tmp_path / "cases.yaml").write_text(cases)
    call("promtool", "test", "rules", tmp_path / "cases.yaml")
    tried = yaml.safe_load(cases)["tests"]
    fired = {rule["alertname"] for case in tried for rule in case.get("alert_rule_test", []) if rule["exp_alerts"]}
    silent = {rule["alertname"] for case in tried for rule in case.get("alert_rule_test", []) if not rule["exp_alerts"]}
    assert fired == silent == set(alerts()), "each is tried both ways"


def test_a_wrong_expectation_is_found(tmp_path):
    write_rules(tmp_path, queries().values())
    cases = (ROOT / "tests" / "deploy" / "alerts.yaml").read_text()
    assert "value: 7" in cases
    (tmp_path / "cases.yaml").write_text(cases.replace("value: 7", "value: 8"))
    assert answer("promtool", "test", "rules", tmp_path / "cases.yaml").returncode
