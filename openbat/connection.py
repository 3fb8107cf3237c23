"""How to reach Kafka: its brokers, and what they ask of a client. For every client of ours."""

import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiokafka.conn import create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from msgspec import Struct

from openbat.settings import Settings, SettingsError

WHY_MILLISECONDS = 5000


class UnreachableError(Exception):
    """Raised when no broker can be reached; says why, and which variable to look at."""


class Connection(Struct, frozen=True):
    """Kafka's brokers, `host:port,host:port`, and how to speak to them.

    Attributes:
        tls: who may have signed a broker's certificate, and ours where we have one; None for none.
        sasl: mechanism, user and password; None for none.

    """

    bootstrap: str
    tls: ssl.SSLContext | None = None
    sasl: tuple[str, str, str] | None = None

    def __repr__(self) -> str:
        return f"Connection({self.bootstrap}, {self.protocol})"  # without the password

    @property
    def protocol(self) -> str:
        """Kafka's `security.protocol`."""
        transport = "SSL" if self.tls else "PLAINTEXT"
        return f"SASL_{transport}" if self.sasl else transport

    def options(self) -> dict[str, Any]:
        """Return aiokafka's keyword arguments for a producer, a consumer or an admin client."""
        return {"bootstrap_servers": self.bootstrap, **self._security()}

    def _security(self) -> dict[str, Any]:
        options: dict[str, Any] = {"security_protocol": self.protocol, "ssl_context": self.tls}
        if self.sasl is not None:
            names = "sasl_mechanism", "sasl_plain_username", "sasl_plain_password"
            options.update(zip(names, self.sasl, strict=True))
        return options

    @contextlib.asynccontextmanager
    async def reaching(self) -> AsyncIterator[None]:
        """Tell a person why, where Kafka can't be reached inside.

        Raises:
            UnreachableError: instead of aiokafka's error, which says only that it is so.

        """
        try:
            yield
        except KafkaConnectionError as error:
            raise UnreachableError(
                f"Kafka does not answer at {self.bootstrap}: {await self._why(error)}"
            ) from error

    async def _why(self, error: KafkaError) -> str:
        """Knock at each broker once more, for the error that aiokafka only logs."""
        found: Exception = error
        for address in self.bootstrap.split(","):
            host, _, port = address.strip().rpartition(":")
            try:
                connection = await create_conn(
                    host, int(port), request_timeout_ms=WHY_MILLISECONDS, **self._security()
                )
            except (OSError, KafkaError, ValueError) as why:
                found = why
                if isinstance(why, ssl.SSLError | SaslAuthenticationFailed):
                    break
            else:
                connection.close()
        return _explained(found)


def connection_of(settings: Settings) -> Connection:
    """Return the connection that the settings describe.

    Raises:
        SettingsError: a file of certificates can't be used.

    """
    tls = sasl = None
    if settings.kafka_security_protocol.endswith("SSL"):
        tls = trust(settings.kafka_ca_file, "OPENBAT_KAFKA_CA_FILE")
        if settings.kafka_cert_file is not None:
            try:
                # An encrypted key fails with the empty password, instead of asking a terminal.
                tls.load_cert_chain(settings.kafka_cert_file, settings.kafka_key_file, "")
            except (OSError, ValueError) as error:
                raise SettingsError(
                    f"OPENBAT_KAFKA_CERT_FILE, OPENBAT_KAFKA_KEY_FILE: {_reason(error)}; expected "
                    "a certificate and its key in PEM, the key not encrypted"
                ) from None
    if settings.kafka_security_protocol.startswith("SASL_"):
        user, password = settings.kafka_username or "", settings.kafka_password or ""
        sasl = settings.kafka_sasl_mechanism, user, password
    return Connection(settings.kafka_bootstrap, tls, sasl)


def trust(ca_file: Path | None, variable: str) -> ssl.SSLContext:
    """Return a TLS context that verifies servers by a file of certificates, or the system's.

    Raises:
        SettingsError: the file can't be used; names the variable.

    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{variable}: {_reason(error)}; expected a file of certificates in PEM"
        ) from None


def _explained(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted ({error.verify_message}); OPENBAT_KAFKA_CA_FILE "
            "names who signed it, and it must be for a host of OPENBAT_KAFKA_BOOTSTRAP"
        )
    if isinstance(error, SaslAuthenticationFailed):
        return (
            "user or password is wrong; check OPENBAT_KAFKA_USERNAME, OPENBAT_KAFKA_PASSWORD and "
            "OPENBAT_KAFKA_SASL_MECHANISM"
        )
    if isinstance(error, UnsupportedSaslMechanismError):
        return "it has not this mechanism enabled; check OPENBAT_KAFKA_SASL_MECHANISM"
    if isinstance(error, IllegalSaslStateError):
        return "it asks for no user here; check OPENBAT_KAFKA_SECURITY_PROTOCOL"
    if isinstance(error, ssl.SSLError | KafkaError | TimeoutError):
        return (
            f"it listens, but not for this ({_reason(error)}); check "
            "OPENBAT_KAFKA_SECURITY_PROTOCOL, and OPENBAT_KAFKA_CERT_FILE where it asks for a "
            "client certificate"
        )
    return f"{_reason(error)}; check OPENBAT_KAFKA_BOOTSTRAP"


def _reason(error: Exception) -> str:
    """Return an error in a few words."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
