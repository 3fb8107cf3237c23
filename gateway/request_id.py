"""A request's id: its caller's, or one of ours; in the answer, and in each line logged for it."""

import itertools
import re
import secrets
from contextvars import ContextVar
from functools import partial

import structlog

HEADER = b"x-request-id"
SCOPE = "openbat.request_id"
"""Where the ASGI scope has it."""

CURRENT: ContextVar[bytes | None] = ContextVar("request_id", default=None)
"""Of the request that this task answers. Set alone, not bound to the log, which costs four times
as much: the log asks for it when a line is written."""

forget_trace = partial(structlog.contextvars.unbind_contextvars, "trace_id", "span_id")
"""Unbind the trace of the request before: a pipelined one's task inherits what was bound."""

_is_sane = re.compile(rb"[!-~]{1,128}").fullmatch
# A UUID for each request costs twenty times as much.
_prefix = secrets.token_hex(8).encode()
_numbers = itertools.count(1)


def request_id_of(sent: bytes | None) -> bytes:
    """Return what a client sent, where it is 1 to 128 visible characters of ASCII; else a new id.

    Ours is 16 hexadecimal digits of this process, and the request's number in it.
    """
    if sent is not None and _is_sane(sent):
        return sent
    return b"%s-%x" % (_prefix, next(_numbers))
