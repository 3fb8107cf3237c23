"""Servers that ask for TLS and passwords, with certificates made on the spot."""

import asyncio
import contextlib
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization

from openbat.local import jars, java, kafka
from tests.brokers import JARS_DIR, READY_SECONDS, Broker
from tests.stack import Running, free_port

USER = "openbat"
PASSWORD = "correct-horse"
SCRAM = "SCRAM-SHA-512"
_JAAS = "org.apache.kafka.common.security"


class Authority:
    """Signs certificates; `ca_file` is what clients trust."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self._directory = directory
        self._ca = trustme.CA()
        self.ca_file = directory / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.ca_file))

    def issue(self, name: str) -> Path:
        """Return a file of a key, in PKCS #8 as Kafka wants it, and its certificates."""
        issued = self._ca.issue_cert(name)
        key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        path = self._directory / f"{name}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + chain
        )
        return path


class SecuredBroker:
    """A broker with a listener for each way in.

    Attributes:
        bootstraps: by `security.protocol`; SSL asks for a client certificate, the others for USER
            and PASSWORD, by PLAIN or SCRAM.

    """

    def __init__(self, data_dir: Path, authority: Authority) -> None:
        port, controller_port = free_port(), free_port()
        ports = {name: free_port() for name in ("SSL", "SASL_SSL", "SASL_PLAINTEXT")}
        self.bootstraps = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        addresses = [f"{name}://{address}" for name, address in self.bootstraps.items()]
        own = f"PLAINTEXT://127.0.0.1:{port}"
        users = f'user_{USER}="{PASSWORD}"'
        overrides: dict[str, str | int] = {
            "listeners": ",".join([own, f"CONTROLLER://127.0.0.1:{controller_port}", *addresses]),
            "advertised.listeners": ",".join([own, *addresses]),
            "listener.security.protocol.map": ",".join(
                f"{name}:{name}" for name in ("PLAINTEXT", *ports)
            )
            + ",CONTROLLER:PLAINTEXT",
            "sasl.enabled.mechanisms": f"PLAIN,{SCRAM}",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(authority.issue("127.0.0.1")),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(authority.ca_file),
            "listener.name.ssl.ssl.client.auth": "required",
            "listener.name.sasl_ssl.ssl.client.auth": "none",
        }
        for name in ("sasl_ssl", "sasl_plaintext"):
            prefix = f"listener.name.{name}"
            overrides[f"{prefix}.plain.sasl.jaas.config"] = (
                f"{_JAAS}.plain.PlainLoginModule required {users};"
            )
            overrides[f"{prefix}.{SCRAM.lower()}.sasl.jaas.config"] = (
                f"{_JAAS}.scram.ScramLoginModule required;"
            )
        self._jars, self._java = jars.fetch(JARS_DIR), java.find_java()
        self._data_dir = data_dir
        self._broker = Broker(
            1,
            data_dir,
            port,
            controller_port,
            {},
            overrides,
            kafka.new_cluster_id(),
            Running(
                kafka.command(data_dir, self._jars, self._java), os.environ, data_dir / "kafka.log"
            ),
        )

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self._data_dir.mkdir(parents=True)
        self._broker.start()
        try:
            asyncio.run(kafka.wait_ready(self._broker.bootstrap, READY_SECONDS))
            self._add_scram_user()
            yield
        finally:
            self._broker.process.kill()

    def _add_scram_user(self) -> None:
        """Tell the broker, with Kafka's own tool, who may come by SCRAM."""
        executable, *options = kafka.command(self._data_dir, self._jars, self._java)
        tool = [executable, *options[: options.index("kafka.Kafka")], "kafka.admin.ConfigCommand"]
        tool += ["--bootstrap-server", self._broker.bootstrap, "--entity-type", "users"]
        tool += ["--entity-name", USER, "--alter", "--add-config"]
        subprocess.run([*tool, f"{SCRAM}=[password={PASSWORD}]"], check=True, capture_output=True)


@contextlib.contextmanager
def tls_terminator(upstream_port: int, certificate: Path) -> Iterator[int]:
    """Speak TLS in front of a server on this machine; yields the port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    loop = asyncio.new_event_loop()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", upstream_port)
        await asyncio.gather(copy(reader, outer), copy(inner, writer))

    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        server.close()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
