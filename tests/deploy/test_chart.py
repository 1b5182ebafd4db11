"""The chart, as far as it can be checked without an API server: by helm itself, by the schemas of all that it makes, and against what the
server, the image and the contract say."""

import functools
import json
import re
import subprocess
import sys

import pytest
import yaml

from faceclip_serving.checks.policy import read
from faceclip_serving.contract.callers import OPERATOR_KEY_VARIABLE
from faceclip_serving.contract.placements import PLACEMENT_NAMES, placements
from faceclip_serving.contract.settings import SETTINGS, read_orders
from faceclip_serving.contract.variants.table import VARIANTS
from server.defaults import DRAIN_TIMEOUT_S, START_TIMEOUT_S, Ports
from server.fleet.command import MAX_WAITING
from server.fleet.envoy.bootstrap import READY_EVERY_S, READY_TIMEOUT_S
from server.fleet.fleet import LINGER_S
from server.health import QUESTIONS
from server.process import STOP_TIMEOUT_S
from tests.server.image import instructions

from .chart import (
    CHART,
    NAMESPACE,
    RELEASE,
    SETS,
    containers,
    documents,
    envoy,
    of_kind,
    one,
    pods,
    refusal,
    server,
    text,
    write,
)
from .tools import ROOT, answer, call

EVERY_SET = pytest.mark.parametrize("values", SETS)
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
ENVIRONMENT = dict(word.split("=", 1) for kind, words in instructions() if kind == "ENV" for word in words.split())


# ---------------------------------------------------------------------------------------------------------------- its own form
@EVERY_SET
def test_helm_finds_no_fault(values):
    call("helm", "lint", "--strict", CHART, "--values", SETS[values])


@EVERY_SET
def test_all_that_kubernetes_knows_is_as_its_schema_says(values, tmp_path):
    call("kubernetes-validate", "--strict", "--quiet", write(tmp_path, values))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("terminationGracePeriodSeconds:", "terminationGracePeriod:"),
        ("maxUnavailable: 1", "maxUnavailable: [1]"),
        ("readOnlyRootFilesystem: true", 'readOnlyRootFilesystem: "yes"'),
        ("startupProbe:", "startProbe:"),
        ("medium: Memory", "medium: {}"),
    ],
)
def test_a_planted_fault_is_found(old, new, tmp_path):
    """What is above finds something."""
    path = write(tmp_path, "sdxl-datacenter")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    done = answer("kubernetes-validate", "--strict", "--quiet", path)
    assert done.returncode and re.search(r"ERROR|FATAL|failed", done.stdout + done.stderr, re.IGNORECASE)


def described(schema, values, path=""):
    """Paths that a schema allows and the values lack, the other way round, and objects that would take any key."""
    if schema.get("type") != "object" or "properties" not in schema:
        return
    if schema.get("additionalProperties") is not False:
        yield f"{path}: takes any key"
    for name in schema["properties"].keys() ^ values.keys():
        yield f"{path}.{name}"
    for name in schema["properties"].keys() & values.keys():
        yield from described(schema["properties"][name], values[name], f"{path}.{name}")


def test_the_schema_knows_exactly_the_values_that_there_are():
    schema = json.loads(json.dumps(SCHEMA))
    del schema["properties"]["global"]  # helm's own
    assert schema["properties"]["settings"]["properties"].keys() == {each.name for each in SETTINGS} - {"policy"}
    schema["properties"]["settings"] = {}
    assert not list(described(schema, DEFAULTS))


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--set=replica=3", "replica"),
        ("--set=placement=9gb", "placement"),
        ("--set=variant=sd15", "variant"),
        ("--set=seconds.drain=-1", "drain"),
        ("--set=settings.max_wating=4", "max_wating"),
        ("--set=repository.source=nfs", "source"),
        ("--set=autoscaling.load=1.5", "load"),
        ("--set=envoy.tokens.jwks=http://issuer.example/keys", "jwks"),
        ("--set=options={drain-timeout=3}", "options"),
        ("--set=gpu.product=", "gpu.product: expected the label nvidia.com/gpu.product"),
        ("--set=keys.secret=", "keys.secret: expected the name of a secret"),
        ("--set=keys.own=", "keys.own: expected the name of a secret"),
        ("--set=repository.source=claim", "repository.folder: expected the folder"),
        ("--set=repository.source=s3", "s3.url: expected the address"),
    ],
)
def test_values_that_mean_nothing_are_refused_by_name(option, said):
    assert said in refusal("sdxl-datacenter", option)


def test_variants_and_placements_are_the_contracts():
    ours = SCHEMA["properties"]
    assert set(ours["variant"]["enum"]) == set(VARIANTS)
    assert set(ours["placement"]["enum"]) == set(PLACEMENT_NAMES)


@pytest.mark.parametrize("placement", SCHEMA["properties"]["placement"]["enum"])
def test_a_gpu_and_engines_are_where_the_placement_has_them(placement):
    components = placements(VARIANTS["sdxl"])[placement].components.values()
    on_gpu = any(each.runtime.instance_kind == "KIND_GPU" for each in components)
    has_engines = any(each.runtime.package for each in components)
    rendered = pods("sdxl-datacenter", f"--set=placement={placement}")
    for pod in (rendered["server"], rendered["build"]):
        assert ("nvidia.com/gpu" in pod["containers"][0]["resources"]["limits"]) == on_gpu
        assert ("nvidia.com/gpu.product" in pod.get("nodeSelector", {})) == on_gpu
        assert any(each.get("key") == "nvidia.com/gpu" for each in pod.get("tolerations", [])) == on_gpu
    (build,) = rendered["build"]["containers"]
    assert (
        {"name": "ENGINES", "value": "no"} not in build["env"]
        if has_engines
        else {"name": "ENGINES", "value": "no"} in build["env"]
    )


# ------------------------------------------------------------------------------------------------------------ a server's life
def option(container, name):
    """Its number, of `server run`."""
    (found,) = (each.partition("=")[2] for each in container["args"] if each.startswith(f"--{name}="))
    return int(found)


@EVERY_SET
def test_a_stop_has_time_for_all_that_it_does(values):
    """The endpoint leaves, Envoys hear of it, the server drains, Triton ends; by the server's own times."""
    pod, container = pods(values)["server"], server(values)
    leave = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    linger, drain = (option(container, name) for name in ("linger", "drain-timeout"))
    assert leave >= 5, "CoreDNS answers from memory for so long"
    assert linger >= READY_EVERY_S + READY_TIMEOUT_S, "so long an Envoy may take to hear that it is not ready"
    assert pod["terminationGracePeriodSeconds"] > leave + linger + drain + STOP_TIMEOUT_S
    if values == "sdxl-datacenter":
        told = re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "kubernetes.md").read_text(), re.MULTILINE)
        moments = (0, leave, leave + linger, leave + linger + drain, pod["terminationGracePeriodSeconds"])
        assert list(map(int, told)) == list(moments)
    longer = pods(values, "--set=seconds.drain=600")["server"]["terminationGracePeriodSeconds"]
    assert longer > leave + linger + 600 + STOP_TIMEOUT_S
    assert linger >= LINGER_S and DEFAULTS["settings"]["max_waiting"] == MAX_WAITING, "as the fleet on one machine has it"
    assert DEFAULTS["seconds"]["drain"] == DRAIN_TIMEOUT_S and DEFAULTS["seconds"]["start"] >= START_TIMEOUT_S


@EVERY_SET
def test_the_health_port_answers_the_probes(values):
    container = server(values)
    asked = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert [each["path"].strip("/") for each in asked.values()] == list(QUESTIONS)
    assert {each["name"]: each["containerPort"] for each in container["ports"]} == vars(Ports())
    assert {each["port"] for each in asked.values()} == {"health"}
    startup = container["startupProbe"]
    start = option(container, "timeout")
    assert startup["periodSeconds"] * startup["failureThreshold"] >= start
    assert one(values, "Deployment")["spec"]["progressDeadlineSeconds"] > start


@EVERY_SET
def test_a_new_server_is_there_before_an_old_one_goes(values):
    for each in of_kind(values, "Deployment"):
        if each["metadata"]["name"] == f"{RELEASE}-gateway":
            assert each["spec"]["strategy"] == {"type": "Recreate"} and each["spec"]["replicas"] == 1, "never two at its files"
        else:
            assert each["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    budgets = of_kind(values, "PodDisruptionBudget")
    assert {each["metadata"]["name"] for each in budgets} == {f"{RELEASE}-server", f"{RELEASE}-envoy"}
    assert all(each["spec"]["maxUnavailable"] == 1 for each in budgets)
    for name in ("server", "envoy"):
        spread = {each["topologyKey"] for each in pods(values)[name]["topologySpreadConstraints"]}
        assert spread == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}


@functools.cache
def help_of(command):
    done = subprocess.run(
        [sys.executable, "-m", "server", command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


@EVERY_SET
def test_settings_and_options_are_those_that_the_server_knows(values):
    arguments = server(values)["args"]
    known = help_of("run")
    assert arguments[0] == "serve" and all(each.partition("=")[0] in known for each in arguments[1:])
    orders = [each.partition("=")[2] for each in arguments if each.startswith("--set=")]
    chosen = yaml.safe_load(SETS[values].read_text())
    placement = placements(VARIANTS[chosen["variant"]])[chosen["placement"]]
    told = read_orders({"faceclip": placement}, orders)
    assert told[""]["max_waiting"] == str(DEFAULTS["settings"]["max_waiting"])


def test_a_policy_is_mounted_where_the_server_is_told_and_is_one(tmp_path):
    values = "sdxl-datacenter"
    policy = one(values, "ConfigMap", "policy")["data"]["policy.toml"]
    assert "--set=policy=/etc/faceclip/policy.toml" in server(values)["args"]
    assert {"name": "policy", "mountPath": "/etc/faceclip", "readOnly": True} in server(values)["volumeMounts"]
    (tmp_path / "policy.toml").write_text(policy)
    assert read(tmp_path / "policy.toml") != read(), "read by the server, and other than the package's own"
    assert not [each for each in server("nano-cpu")["args"] if "policy" in each]


# -------------------------------------------------------------------------------------------------------- memory, rights, walls
@EVERY_SET
def test_shared_memory_is_memory_and_counts(values):
    chosen = {**DEFAULTS["resources"], **yaml.safe_load(SETS[values].read_text()).get("resources", {})}
    for name, pod in pods(values).items():
        if name not in ("server", "build"):
            continue
        (container,) = pod["containers"]
        volumes = {each["name"]: each for each in pod["volumes"]}
        (mounted,) = (each["name"] for each in container["volumeMounts"] if each["mountPath"] == "/dev/shm")
        region = volumes[mounted]["emptyDir"]
        gib = int(region["sizeLimit"].removesuffix("Gi"))
        assert region["medium"] == "Memory" and gib == (chosen["sharedMemoryGi"] if name == "server" else 1)
        assert container["resources"]["limits"]["memory"] == f"{chosen['memoryGi'] + gib}Gi"
        assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]


@EVERY_SET
def test_nobody_is_root_writes_to_the_image_or_has_a_token(values):
    for name, pod in pods(values).items():
        assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 1000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        for container in containers(pod):
            told = container["securityContext"]
            assert told["readOnlyRootFilesystem"] and told["allowPrivilegeEscalation"] is False, container["name"]
            assert told["capabilities"] == {"drop": ["ALL"]} and "privileged" not in told
            assert container["resources"]["limits"]["memory"], container["name"]


def reached(policy):
    """(ports, from whom) of each rule of a policy: components of this release, or namespaces."""
    for rule in policy["spec"]["ingress"]:
        sources = []
        for each in rule["from"]:
            ((kind, selector),) = each.items()
            labels = selector["matchLabels"]
            sources.append(
                labels["app.kubernetes.io/component"] if kind == "podSelector" else labels["kubernetes.io/metadata.name"]
            )
            assert kind != "podSelector" or labels["app.kubernetes.io/instance"] == RELEASE
        yield [each["port"] for each in rule["ports"]], sources


@EVERY_SET
def test_only_envoy_reaches_servers_and_only_prometheus_their_metrics(values):
    policy = one(values, "NetworkPolicy")
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    assert policy["spec"]["podSelector"]["matchLabels"] == one(values, "Deployment")["spec"]["selector"]["matchLabels"]
    assert list(reached(policy)) == [(["grpc", "health"], ["envoy", "gateway"]), (["metrics"], ["monitoring"])]
    assert "ingress" not in one(values, "NetworkPolicy", "build")["spec"], "nobody reaches the Job"
    assert not of_kind(values, "NetworkPolicy", "--set=networkPolicy.enabled=false")


def test_services_lead_to_the_pods_that_they_mean():
    for values in SETS:
        labels = [each["spec"]["template"]["metadata"]["labels"] for each in of_kind(values, "Deployment")]
        named = {port["name"] for pod in pods(values).values() for each in containers(pod) for port in each.get("ports", [])}
        for service in of_kind(values, "Service"):
            assert sum(service["spec"]["selector"].items() <= each.items() for each in labels) == 1
            assert {each["targetPort"] for each in service["spec"]["ports"]} <= named
        assert one(values, "Service")["spec"]["clusterIP"] == "None", "Envoy must see each server"


# ------------------------------------------------------------------------------------------------------------------------ keys
def test_keys_come_from_secrets_and_are_in_no_manifest():
    environment = {each["name"]: each for each in server("sdxl-datacenter")["env"]}
    for variable, key in ((OPERATOR_KEY_VARIABLE, "operator"), ("FACECLIP_ADMIN_KEY", "admin")):
        assert environment[variable]["valueFrom"]["secretKeyRef"] == {"name": "faceclip-keys", "key": key}
    assert not of_kind("sdxl-datacenter", "Secret")


def keys_of(values, folder):
    """Carries out the init container `keys` over a Secret as Kubernetes mounts it: links into a folder, readable by the group."""
    (container,) = (each for each in pods(values)["server"]["initContainers"] if each["name"] == "keys")
    *shell, script = container["command"]
    marks = ENVIRONMENT["FACECLIP_MARKS_FOLDER"]
    assert {"name": "state", "mountPath": marks, "subPath": "marks"} in container["volumeMounts"]
    (folder / "marks").mkdir()
    script = script.replace("/keys/", f"{folder}/keys/").replace(marks, str(folder / "marks"))
    return subprocess.run([*shell, script], capture_output=True, text=True, check=False)


def secret(folder, names):
    data = folder / "keys" / "..data"
    data.mkdir(parents=True)
    for name in names:
        (data / name).write_text(name)
        (data / name).chmod(0o440)
        (folder / "keys" / name).symlink_to(f"..data/{name}")


FILES = ("watermark.key", "identity.key", "certificate.pem", "certificate.key", "root.pem")


def test_own_keys_belong_to_the_servers_user_alone(tmp_path):
    secret(tmp_path, FILES)
    done = keys_of("nano-cpu", tmp_path)
    assert done.returncode == 0, done.stderr
    found = {path.name: path for path in (tmp_path / "marks").iterdir()}
    assert set(found) == set(FILES)
    assert all(path.is_file() and not path.is_symlink() and not path.stat().st_mode & 0o077 for path in found.values())


@pytest.mark.parametrize("missing", FILES)
def test_a_server_does_not_start_with_keys_that_each_would_make_for_itself(missing, tmp_path):
    secret(tmp_path, [name for name in FILES if name != missing])
    done = keys_of("nano-cpu", tmp_path)
    assert done.returncode == 1 and f"keys.own: the secret has no {missing}" in done.stderr


# --------------------------------------------------------------------------------------------------------------------- gateway
def test_the_gateways_options_are_its_own():
    (gateway,) = pods("gateway")["gateway"]["containers"]
    command, *arguments = gateway["args"]
    known = set(re.findall(r"^\| `(--[a-z-]+)`", (ROOT / "docs" / "gateway.md").read_text(), re.MULTILINE))
    assert command == "run" and {each.partition("=")[0] for each in arguments} <= known
    told = dict(each.split("=", 1) for each in arguments)
    data = {each["mountPath"]: each["name"] for each in gateway["volumeMounts"]}
    assert f"/opt/gateway/{told['--data']}" in data, "where its image keeps them"
    (listener,) = envoy("gateway", "gateway")["static_resources"]["listeners"]
    where = listener["address"]["socket_address"]
    assert told["--server"] == f"{where['address']}:{where['port_value']}" and where["address"] == "127.0.0.1"


@EVERY_SET
def test_everything_bears_the_releases_name_and_labels(values):
    for each in documents(values):
        assert each["metadata"]["name"].startswith(f"{RELEASE}-"), "two releases may share a namespace"
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == RELEASE and labels["app.kubernetes.io/managed-by"] == "Helm"
    assert NAMESPACE not in {each["metadata"].get("namespace") for each in documents(values)}
    assert text(values)
