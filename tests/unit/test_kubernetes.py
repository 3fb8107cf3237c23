"""The manifests of deploy/kubernetes are what Kubernetes, KEDA and the code take.

No cluster is asked: Kubernetes' own schemas come with a package, what is checked of KEDA's kinds is
written here, after https://keda.sh/docs/2.22/scalers/apache-kafka/.
"""

import asyncio
import copy
import re
from collections.abc import Iterator
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import msgspec
import pytest
from typer.main import get_group

from gateway import health as gateway_health
from openbat import __version__, cli, gateway_role, settings, worker_role
from openbat.clickhouse_writer import PING_SECONDS
from openbat.health import ALIVE, LOOK_SECONDS, METRICS, READY
from openbat.settings import Settings
from openbat.worker_health import WorkerHealth
from schemas import topics
from streams import app
from streams.progress import ENDS_SECONDS
from tests.stack import ROOT
from tests.unit.test_readme import commands_of

FOLDER = ROOT / "deploy" / "kubernetes"
KUSTOMIZATION = FOLDER / "kustomization.yaml"
TEMPLATE = "secrets.template.yaml"
OPTIONAL = {"language-model.yaml"}
VERSIONS = ("1.30", "1.37")
"""The oldest Kubernetes that the manifests are for, and the newest whose schemas are at hand."""

KEDA = "keda.sh/v1alpha1"
READ_BY = {
    "conversations": (topics.CONVERSATIONS_GROUP, {topics.CAPTURES}),
    "clickhouse-worker": (topics.CLICKHOUSE_GROUP, {topics.MESSAGES, topics.ANALYSES}),
    "analysis": (topics.ANALYSIS_GROUP, {topics.ANALYSIS, topics.ANALYSIS_LATER}),
}
ROLES = ("gateway", *READ_BY)
KEDA_SASL = {"PLAIN": "plaintext", "SCRAM-SHA-256": "scram_sha256", "SCRAM-SHA-512": "scram_sha512"}

Document = dict[str, Any]


def read(name: str) -> list[Document]:
    """Return a file's documents."""
    parts = re.split(r"^---\n", (FOLDER / name).read_text(), flags=re.MULTILINE)
    return [msgspec.yaml.decode(part) for part in parts]


FILES = sorted(path.name for path in FOLDER.glob("*.yaml") if path != KUSTOMIZATION)
DOCUMENTS = {
    f"{name}:{document['kind']}/{document['metadata']['name']}": document
    for name in FILES
    for document in read(name)
}


def of_kind(*kinds: str) -> dict[str, Document]:
    """Return the documents of some kinds by their names, without the secrets' template."""
    return {
        document["metadata"]["name"]: document
        for where, document in DOCUMENTS.items()
        if document["kind"] in kinds and not where.startswith(TEMPLATE)
    }


PODS = {
    name: document["spec"]["template"]
    for name, document in of_kind("Deployment", "StatefulSet", "Job").items()
}
CONFIG: dict[str, str] = of_kind("ConfigMap")["openbat"]["data"]
TEMPLATES: dict[str, dict[str, str]] = {
    document["metadata"]["name"]: document["stringData"] for document in read(TEMPLATE)
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "where", [key for key, each in DOCUMENTS.items() if each["apiVersion"] != KEDA]
)
def test_a_document_is_what_kubernetes_takes(where: str, version: str) -> None:
    kubernetes_validate.validate(DOCUMENTS[where], version, strict=True)


def test_a_member_that_kubernetes_does_not_know_is_found() -> None:
    wrong = copy.deepcopy(of_kind("Deployment")["gateway"])
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_every_file_is_a_resource_but_the_template_and_what_is_optional() -> None:
    kustomization = msgspec.yaml.decode(KUSTOMIZATION.read_bytes())
    assert set(kustomization["resources"]) == set(FILES) - OPTIONAL - {TEMPLATE}
    for name in OPTIONAL:
        assert f"# - {name}" in KUSTOMIZATION.read_text()
    assert list(of_kind("Namespace")) == [kustomization["namespace"]]
    assert kustomization["images"][0]["newTag"] == __version__


def test_every_setting_is_one_of_ours_and_their_values_are_taken() -> None:
    known = {settings.PREFIX + name.upper() for name in Settings.__struct_fields__}
    for path in FOLDER.iterdir():
        for name in re.findall(r"OPENBAT_[A-Z_]+", path.read_text()):
            assert name in known, f"{path.name}: {name}"
    secrets = {"OPENBAT_KAFKA_USERNAME": "openbat", "OPENBAT_KAFKA_PASSWORD": "secret"}
    loaded = settings.load({**CONFIG, **secrets})
    assert loaded.replication_factor >= 3
    assert loaded.partitions % 8 == 0


@pytest.mark.parametrize("name", PODS)
def test_a_container_runs_a_command_of_ours_and_may_do_little(name: str) -> None:
    pod = PODS[name]["spec"]
    (container,) = pod["containers"]
    assert " ".join(["openbat", *container["args"]]) in commands_of(get_group(cli.app))
    assert container["image"] == "openbat-capture"
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    user = pod["securityContext"]["runAsUser"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert f"--uid {user} " in (ROOT / "Dockerfile").read_text()
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert {"memory"} == set(container["resources"]["limits"])
    volumes = {volume["name"] for volume in pod["volumes"]}
    claims = of_kind("StatefulSet").get(name, {"spec": {"volumeClaimTemplates": []}})
    volumes |= {claim["metadata"]["name"] for claim in claims["spec"]["volumeClaimTemplates"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == volumes
    for each in container.get("env", []):
        assert (each["name"], each["value"]) == ("OPENBAT_DATA_DIR", mounts["data"])
    assert ("data" in mounts) == (container["args"][0] == "worker")


def references(node: Any) -> Iterator[tuple[str, str | None]]:
    """Yield every Secret that a document names, and the key where it names one."""
    if isinstance(node, list):
        for each in node:
            yield from references(each)
    elif isinstance(node, dict):
        if "secretRef" in node:
            yield node["secretRef"]["name"], None
        for each in node.get("secretTargetRef", []):
            yield each["name"], each["key"]
        for each in node.values():
            yield from references(each)


def test_every_secret_is_in_the_template_and_none_has_a_value() -> None:
    named = [found for document in DOCUMENTS.values() for found in references(document)]
    assert {name for name, _ in named} == set(TEMPLATES)
    for name, key in named:
        assert key is None or key in TEMPLATES[name]
    assert not any(value for template in TEMPLATES.values() for value in template.values())


def test_each_role_gets_the_secrets_that_it_needs_and_no_other() -> None:
    def environment(name: str) -> set[str]:
        return {found for found, _ in references(PODS[name]["spec"]["containers"])}

    assert environment("gateway") == environment("conversations") == {"openbat-kafka"}
    assert environment("clickhouse-worker") == {"openbat-kafka", "openbat-clickhouse"}
    assert environment("migrate") == {"openbat-kafka", "openbat-clickhouse-admin"}
    assert environment("analysis") == {"openbat-kafka", "openbat-llm"}


def test_the_migrations_alone_are_given_the_analysts_password() -> None:
    variable = "OPENBAT_CLICKHOUSE_READER_PASSWORD"
    assert [name for name, given in TEMPLATES.items() if variable in given] == [
        "openbat-clickhouse-admin"
    ]
    assert variable not in CONFIG
    assert settings.load(TEMPLATES["openbat-clickhouse-admin"]).clickhouse_reader_password is None


def test_processes_have_the_time_that_they_give_themselves_to_end() -> None:
    gateway = PODS["gateway"]["spec"]
    _, before = gateway["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    needed = int(before) + gateway_role.SHUTDOWN_SECONDS + Settings().produce_timeout_seconds
    assert gateway["terminationGracePeriodSeconds"] > needed
    for name in READ_BY:
        needed = app.SESSION_SECONDS + worker_role.STOP_SECONDS
        assert PODS[name]["spec"]["terminationGracePeriodSeconds"] > needed


def test_a_gateway_is_asked_whether_it_is_ready_with_patience() -> None:
    container = PODS["gateway"]["spec"]["containers"][0]
    ready, alive = container["readinessProbe"], container["livenessProbe"]
    assert (ready["httpGet"]["path"], alive["httpGet"]["path"]) == ("/readyz", "/healthz")
    assert ready["timeoutSeconds"] > gateway_role.READY_TIMEOUT_SECONDS


async def served_paths(name: str) -> dict[str, set[str]]:
    """Return the health paths that a role serves, by the name of the port."""
    if name == "gateway":
        return {"http": {route.path for route in gateway_health.routes(_unasked)}}
    health = WorkerHealth(asyncio.get_running_loop(), lambda: None)
    return {"metrics": set(health.paths())}


async def _unasked() -> list[str]:
    raise AssertionError


@pytest.mark.parametrize("name", ROLES)
async def test_probes_ask_for_what_is_served(name: str) -> None:
    container = PODS[name]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    expected = {"metrics": int(CONFIG["OPENBAT_METRICS_PORT"])}
    assert ports == (expected | {"http": Settings().port} if name == "gateway" else expected)
    served = await served_paths(name)
    for probe, path in (
        ("startupProbe", ALIVE),
        ("livenessProbe", ALIVE),
        ("readinessProbe", READY),
    ):
        asked = container[probe]["httpGet"]
        assert asked["path"] == path
        assert path in served[asked["port"]]
        assert asked["port"] in ports
    # The kubelet and Prometheus come from outside of the pod.
    assert CONFIG["OPENBAT_METRICS_HOST"] == "0.0.0.0"  # noqa: S104


@pytest.mark.parametrize("name", READ_BY)
def test_a_worker_has_the_time_to_say_why_it_is_not_well(name: str) -> None:
    container = PODS[name]["spec"]["containers"][0]
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["timeoutSeconds"] > LOOK_SECONDS
    # A ping is made again once, and waits to connect and for the answer.
    assert container["readinessProbe"]["timeoutSeconds"] > max(
        LOOK_SECONDS, ENDS_SECONDS + 4 * PING_SECONDS
    )
    # A store is opened, or a loop is busy, for a while: neither is a reason to start it again.
    start, alive = container["startupProbe"], container["livenessProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] >= 300
    assert alive["periodSeconds"] * alive["failureThreshold"] >= 60


@pytest.mark.parametrize("name", ROLES)
def test_prometheus_is_told_where_metrics_are(name: str) -> None:
    assert PODS[name]["metadata"]["annotations"] == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": CONFIG["OPENBAT_METRICS_PORT"],
        "prometheus.io/path": METRICS,
    }


@pytest.mark.parametrize("name", ROLES)
def test_a_pod_that_is_not_ready_holds_no_drain_up(name: str) -> None:
    budget = of_kind("PodDisruptionBudget")[name]["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")


def selectors() -> Iterator[tuple[str, Document]]:
    """Yield every selector of pods in this namespace, with where it is."""
    for where, document in DOCUMENTS.items():
        spec = document.get("spec", {})
        if document["kind"] == "Service":
            yield where, {"matchLabels": spec["selector"]}
        elif document["kind"] == "NetworkPolicy" and spec["podSelector"]:
            yield where, spec["podSelector"]
        elif document["kind"] in {"Deployment", "StatefulSet", "PodDisruptionBudget"}:
            yield where, spec["selector"]


def test_every_selector_takes_the_pods_that_it_means() -> None:
    components = {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in PODS.values()}
    assert components == set(PODS)
    for where, selector in selectors():
        wanted = selector.get("matchLabels", {})
        assert wanted.get("app.kubernetes.io/name", "openbat") == "openbat"
        name = where.rpartition("/")[2]
        if "NetworkPolicy" not in where:
            assert wanted["app.kubernetes.io/component"] == name
        for expression in selector.get("matchExpressions", []):
            assert set(expression["values"]) < components, where
    for name, document in of_kind("Deployment", "StatefulSet").items():
        assert document["metadata"]["labels"] == document["spec"]["template"]["metadata"]["labels"]
        assert name in of_kind("PodDisruptionBudget")


def test_only_the_gateway_is_open_and_metrics_are_for_the_monitoring_alone() -> None:
    policies = {name: each["spec"] for name, each in of_kind("NetworkPolicy").items()}
    open_to_all = [
        name
        for name, spec in policies.items()
        for rule in spec.get("ingress", [])
        if "from" not in rule
    ]
    assert open_to_all == ["gateway"]
    assert policies["nothing-else"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    (rule,) = policies["metrics"]["ingress"]
    assert [str(port["port"]) for port in rule["ports"]] == [CONFIG["OPENBAT_METRICS_PORT"]]
    ports = [
        port["port"] for rule in policies["names-and-kafka"]["egress"] for port in rule["ports"]
    ]
    assert int(CONFIG["OPENBAT_KAFKA_BOOTSTRAP"].rpartition(":")[2]) in ports


def test_what_is_scaled_has_no_number_of_its_own() -> None:
    scaled = {
        each["spec"]["scaleTargetRef"]["name"]: each["spec"]["scaleTargetRef"]["kind"]
        for kind in ("ScaledObject", "HorizontalPodAutoscaler")
        for each in of_kind(kind).values()
    }
    workloads = of_kind("Deployment", "StatefulSet")
    assert scaled == {name: each["kind"] for name, each in workloads.items()}
    assert not any("replicas" in each["spec"] for each in workloads.values())


@pytest.mark.parametrize("name", READ_BY)
def test_workers_follow_the_lag_of_what_they_read(name: str) -> None:
    spec = of_kind("ScaledObject")[name]["spec"]
    group, read_topics = READ_BY[name]
    cpu, *lags = spec["triggers"]
    assert cpu == {"type": "cpu", "metricType": "Utilization", "metadata": {"value": "60"}}
    assert {lag["metadata"]["topic"] for lag in lags} == read_topics
    for lag in lags:
        asked = lag["metadata"]
        assert all(type(value) is str for value in asked.values()), "KEDA takes strings alone"
        assert lag["type"] == "kafka"
        assert lag["authenticationRef"]["name"] in of_kind("TriggerAuthentication")
        assert asked["bootstrapServers"] == CONFIG["OPENBAT_KAFKA_BOOTSTRAP"]
        assert asked["consumerGroup"] == group
        assert asked["offsetResetPolicy"] == "earliest"
        assert asked["allowIdleConsumers"] == "false"
        assert asked["sasl"] == KEDA_SASL[CONFIG["OPENBAT_KAFKA_SASL_MECHANISM"]]
        assert asked["tls"] == "enable"
        assert int(asked["lagThreshold"]) > 0
    assert 2 <= spec["minReplicaCount"] <= spec["maxReplicaCount"]
    slow = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    # What Kubernetes takes at most; its schema does not say so, its API's documentation does.
    assert slow["stabilizationWindowSeconds"] <= 3600
    assert slow["policies"][0]["periodSeconds"] <= 1800


def test_there_are_never_more_workers_than_partitions() -> None:
    most = [each["spec"]["maxReplicaCount"] for each in of_kind("ScaledObject").values()]
    assert max(most) * 4 <= int(CONFIG["OPENBAT_PARTITIONS"])
    # A Deployment makes new pods before it ends old ones, unless it is told not to.
    update = of_kind("Deployment")["clickhouse-worker"]["spec"]["strategy"]["rollingUpdate"]
    assert update == {"maxSurge": 0, "maxUnavailable": 1}
