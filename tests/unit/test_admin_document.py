"""schemathesis: the admin API answers as the OpenAPI document says, over a registry in memory."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.applications import Starlette

from openbat import chatbots
from openbat.admin import RegistryChatbots
from openbat.connection import Connection
from openbat.gateway_role import server_config
from openbat.settings import Settings
from tests.stack import wait_until
from tests.unit.test_admin import ADMIN, BEARER, Log, app_of
from tests.unit.test_gateway import chatbot

POSITIVE, NEGATIVE = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
OPERATIONS = [
    ("listChatbots", POSITIVE),
    ("createChatbot", POSITIVE),
    # The one operation of which nothing but the body can be wrong.
    ("createChatbot", NEGATIVE),
    ("getChatbot", POSITIVE),
    ("changeChatbot", POSITIVE),
    ("rotateKey", POSITIVE),
    ("archiveChatbot", POSITIVE),
]
# A schema does not say which names are printable, or which rates there are: those are 400.
SAID_IN_WORDS = [positive_data_acceptance]
KNOWN = chatbot()


@contextlib.contextmanager
def served(app: Starlette) -> Iterator[str]:
    """Serve an app as a gateway does, until the end of the block; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(server_config(app, Settings()))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(lambda: server.started, 20, "the server's start")
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.parametrize(("operation_id", "mode"), OPERATIONS)
def test_answers_are_as_the_document_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, operation_id: str, mode: GenerationMode
) -> None:
    log = Log()
    log.put(KNOWN)
    monkeypatch.setattr(chatbots, "edit_registry", log.edit)
    store = RegistryChatbots(Connection("nowhere"), log.followed, tmp_path, asyncio.Lock())
    with served(app_of(ADMIN, lambda: store)) as url:
        seen = statuses_of(url, operation_id, mode)
    assert all(status < 500 for status in seen)
    if mode is POSITIVE:
        assert min(seen) < 300


def statuses_of(url: str, operation_id: str, mode: GenerationMode) -> set[int]:
    """Try an operation; return which answers it gave, all as the document says."""
    document = httpx.get(f"{url}/openapi.json").json()
    for path in document["paths"].values():
        for operation in path.values():
            # Each case has the key: without it there is but one answer.
            if isinstance(operation, dict):
                operation.pop("security", None)
    tried = schemathesis.openapi.from_dict(document).find_operation_by_id(operation_id)
    seen: set[int] = set()

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(tried.as_strategy(generation_mode=mode))
    def answers(case: Any) -> None:
        if "id" in case.path_parameters:
            case.path_parameters["id"] = KNOWN.id
        answer = case.call(base_url=url, headers=BEARER)
        seen.add(answer.status_code)
        case.validate_response(answer, excluded_checks=SAID_IN_WORDS)

    answers()
    return seen
