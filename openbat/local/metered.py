"""Gives a process of ours a port for its metrics."""

import dataclasses
import socket
from collections.abc import Mapping

from openbat.health import METRICS
from openbat.local.supervisor import Spec
from openbat.settings import PREFIX

HOST = "127.0.0.1"
_PORT = f"{PREFIX}METRICS_PORT"
_HOST = f"{PREFIX}METRICS_HOST"


def metered(spec: Spec) -> Spec:
    """Return a spec whose process serves metrics: at the port that it had, where that is free."""
    environment = {**spec.environment, _HOST: HOST, _PORT: "0"}

    def before_start() -> None:
        if spec.before_start is not None:
            spec.before_start()
        environment[_PORT] = str(_free_port(int(environment[_PORT])))

    return dataclasses.replace(spec, environment=environment, before_start=before_start)


def metrics_url(environment: Mapping[str, str]) -> str | None:
    """Return where a process of this environment serves its metrics, None where it does not."""
    port = environment.get(_PORT, "0")
    return None if port == "0" else f"http://{HOST}:{port}{METRICS}"


def _free_port(wanted: int) -> int:
    # It may be taken again before the process does: then that ends, and gets another one.
    try:
        return _bound_port(wanted)
    except OSError:
        return _bound_port(0)


def _bound_port(port: int) -> int:
    with socket.create_server((HOST, port)) as probe:
        found: int = probe.getsockname()[1]
        return found
