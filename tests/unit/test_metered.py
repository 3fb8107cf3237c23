"""Each process of a local stack has a port for its metrics, and says where."""

import socket

from openbat.local.metered import metered, metrics_url
from openbat.local.supervisor import Spec


def port_of(spec: Spec) -> int:
    return int(spec.environment["OPENBAT_METRICS_PORT"])


def test_a_process_gets_a_port_when_it_starts_and_keeps_it_while_it_is_free() -> None:
    called = []
    spec = metered(Spec("role", [], {"OTHER": "1"}, before_start=lambda: called.append(1)))
    assert metrics_url(spec.environment) is None
    assert spec.before_start is not None
    spec.before_start()
    first = port_of(spec)
    assert metrics_url(spec.environment) == f"http://127.0.0.1:{first}/metrics"
    assert spec.environment["OPENBAT_METRICS_HOST"] == "127.0.0.1"
    assert spec.environment["OTHER"] == "1"
    spec.before_start()
    assert port_of(spec) == first
    with socket.create_server(("127.0.0.1", first)):
        spec.before_start()
    assert port_of(spec) != first
    assert len(called) == 3


def test_a_process_without_metrics_says_nowhere() -> None:
    assert metrics_url({}) is None
