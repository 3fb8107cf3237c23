"""Clients of ClickHouse."""

import ssl
from collections.abc import Iterator
from http.client import HTTPException
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
    said = no_answer(error) or str(error).splitlines()[0]
    return said if "OPENBAT_" in said else f"{said}; check OPENBAT_CLICKHOUSE_URL"


def no_answer(error: BaseException) -> str | None:
    """Return in plain words why no answer came; None where ClickHouse answered with an error.

    What the client says itself is longer, and names its libraries' classes.
    """
    found = list(_causes(error))
    for cause in found:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not trusted ({cause.verify_message}); "
                "OPENBAT_CLICKHOUSE_CA_FILE names who signed it"
            )
    # The innermost has no words around it.
    for cause in reversed(found):
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        if isinstance(cause, TimeoutError):
            return "it does not answer in time: it hangs, or has too much to do"
        if isinstance(cause, ConnectionError):
            return "it closes connections without an answer"
        if isinstance(cause, HTTPException):
            return "what answers there does not speak HTTP"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        for found in (cause, getattr(cause, "reason", None), *cause.args):
            if isinstance(found, BaseException):
                yield found
        cause = cause.__cause__ or cause.__context__
