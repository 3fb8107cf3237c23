"""Clients of ClickHouse."""

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError

from openbat.connection import trust

_WRONG_USER = frozenset({192, 193, 194, 516})
"""ClickHouse's error codes: unknown user, wrong password, password required, refused."""


class ClickHouseUnreachableError(Exception):
    """Raised when ClickHouse can't be reached; says why, and which variable to look at."""


def clickhouse_client(url: str, ca_file: Path | None = None, **options: Any) -> Any:
    """Return a client without a session, so that its queries may overlap.

    Args:
        url: `http[s]://[user:password@]host:port`.
        ca_file: with https, who signed ClickHouse's certificate; None for whom the system trusts.
        options: of clickhouse-connect's `get_client`, such as time-outs.

    Raises:
        ClickHouseUnreachableError: it does not answer, or refuses the user.
        SettingsError: the file can't be used.

    """
    if ca_file is not None:
        trust(ca_file, "OPENBAT_CLICKHOUSE_CA_FILE")
    parts = urlsplit(url)
    try:
        return clickhouse_connect.get_client(
            dsn=url,
            interface=parts.scheme,  # left to itself, the client goes by the port
            ca_cert=str(ca_file) if ca_file is not None else None,
            autogenerate_session_id=False,
            **options,
        )
    except ClickHouseError as error:
        host = parts.netloc.rpartition("@")[2]  # without the password
        raise ClickHouseUnreachableError(
            f"ClickHouse can't be used at {parts.scheme}://{host}: {_explained(error)}"
        ) from error


def _explained(error: BaseException) -> str:
    if getattr(error, "code", None) in _WRONG_USER:
        return "user or password is wrong; check OPENBAT_CLICKHOUSE_URL"
    cause: BaseException | None = error
    said = str(error).splitlines()[0]
    while cause is not None:
        for found in (cause, getattr(cause, "reason", None), *cause.args):
            if isinstance(found, ssl.SSLCertVerificationError):
                return (
                    f"its certificate is not trusted ({found.verify_message}); "
                    "OPENBAT_CLICKHOUSE_CA_FILE names who signed it"
                )
        if isinstance(cause, OSError) and cause.strerror:
            said = cause.strerror  # what the client wraps it in is longer, and says no more
        cause = cause.__cause__ or cause.__context__
    return f"{said}; check OPENBAT_CLICKHOUSE_URL"
