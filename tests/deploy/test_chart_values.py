"""Values that do not go together are refused by name, and so is a change between two sets that would take servers away."""

import pytest
import yaml

from faceclip_serving.contract.placements import placements
from faceclip_serving.contract.variants.table import VARIANTS

from .api import api, kinds, objects
from .chart import CHART, NAMESPACE, RELEASE, SETS, documents, one, refusal, server, text
from .tools import answer, call

SCALED = "s3-keda-monitoring"


# -------------------------------------------------------------------------------------------------------------------------- pairs
@pytest.mark.parametrize("placement", {name: None for each in VARIANTS.values() for name in placements(each)})
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_goes_on_the_placements_that_it_has(variant, placement):
    done = answer(
        "helm",
        "template",
        RELEASE,
        CHART,
        "--values",
        SETS["sdxl-datacenter"],
        f"--set=variant={variant},placement={placement}",
    )
    assert (done.returncode == 0) == (placement in placements(VARIANTS[variant]))
    assert done.returncode == 0 or "/placement" in done.stderr


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--set=autoscaling.enabled=true,autoscaling.min=9,autoscaling.max=3", "autoscaling.min: expected no more than"),
        (
            '--set-json=envoy.quotas=[{"requests":1,"seconds":1},{"requests":2,"seconds":1}]',
            "envoy.quotas: expected one for each",
        ),
        (
            '--set-json=envoy.quotas=[{"requests":1,"seconds":1,"tenant":"a"},{"requests":2,"seconds":1,"tenant":"a"}]',
            "envoy.quotas: expected one for each",
        ),
        ("--set=envoy.tls=", "envoy.service.type: expected envoy.tls and envoy.tokens"),
        ("--set=envoy.tls=,envoy.service.type=NodePort", "envoy.service.type: expected envoy.tls and envoy.tokens"),
        ("--set=envoy.tokens.issuer=,envoy.quotas=null", "envoy.service.type: expected envoy.tls and envoy.tokens"),
    ],
)
def test_values_that_do_not_go_together_are_refused_by_name(option, said):
    assert said in refusal("sdxl-datacenter", option)


@pytest.mark.parametrize("option", ["envoy.tls=,envoy.service.trusted=true", "envoy.tls=,envoy.service.type=ClusterIP"])
def test_tls_may_be_anothers_or_none_within_the_cluster(option):
    assert text("sdxl-datacenter", f"--set={option}")


def test_one_may_be_the_least_and_the_most():
    assert text(SCALED, "--set=autoscaling.min=3,autoscaling.max=3")


# ------------------------------------------------------------------------------------------------------------------------ options
def given(arguments):
    return {each.partition("=")[0] for each in arguments if each.startswith("--")} - {"--set"}


@pytest.mark.parametrize("name", sorted(given(server("nano-cpu")["args"])))
def test_what_the_chart_gives_cannot_be_given_again(name):
    """The last one would count, and the grace of a stop be reckoned by the first."""
    assert f"options: expected no {name}, got '{name}=600'" in refusal("nano-cpu", f"--set=options={{{name}=600}}")


@pytest.mark.parametrize("name", ["--address", "--http-port", "--grpc-port", "--metrics-port", "--health-port"])
def test_what_probes_and_services_count_on_cannot_be_given(name):
    assert f"options: expected no {name}" in refusal("nano-cpu", f"--set=options={{{name}=600}}")


@pytest.mark.parametrize("name", ["--data", "--host", "--port", "--public-url", "--drain-timeout"])
def test_nor_can_the_gateways(name):
    assert f"gateway.options: expected no {name}" in refusal("gateway", f"--set=gateway.options={{{name}=600}}")


def test_others_can():
    assert "--stall-timeout=600" in server("nano-cpu", "--set=options={--stall-timeout=600}")["args"]


# -------------------------------------------------------------------------------------------------------------------- autoscaling
def upgraded(present, *options):
    """The Deployment of servers that an upgrade makes, where there are so many now; None: no Deployment."""
    there = one("sdxl-datacenter", "Deployment")
    owner = {"meta.helm.sh/release-name": RELEASE, "meta.helm.sh/release-namespace": NAMESPACE}
    there = {
        **there,
        "metadata": {**there["metadata"], "annotations": owner},
        "spec": {**there["spec"], "replicas": present},
    }
    answers = kinds(documents(SCALED))
    answers |= objects([there], NAMESPACE) if present is not None else {}
    with api(answers) as address:
        rendered = call(
            "helm",
            *("template", RELEASE, CHART, "--namespace", NAMESPACE, "--values", SETS[SCALED], *options, "--dry-run=server"),
            *("--disable-openapi-validation", "--kube-apiserver", address, "--show-only", "templates/server.yaml"),
        )
    (found,) = (each for each in yaml.safe_load_all(rendered) if each and each["kind"] == "Deployment")
    return found["spec"]


@pytest.mark.parametrize(("present", "replicas"), [(6, 6), (40, 40), (41, 40), (1, 2), (0, 2)])
def test_turning_autoscaling_on_keeps_the_servers_that_there_are(present, replicas):
    """A field that goes from the manifest is set to 1. Within the limits, 2 and 40."""
    assert upgraded(present)["replicas"] == replicas


def test_where_there_are_none_the_autoscaler_alone_says_how_many():
    assert "replicas" not in upgraded(None)
    assert "replicas" not in one(SCALED, "Deployment")["spec"]


def test_without_autoscaling_the_values_say_how_many():
    assert upgraded(6, "--set=autoscaling.enabled=false,replicas=3")["replicas"] == 3
