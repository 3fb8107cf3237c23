"""The programs of docs/clients.md, as they stand there: on the real stack, and when it fails."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gateway.capture import PENDING
from tests.faulty import Answer, FaultyGateway, faulty_gateway
from tests.stack import ROOT, Stack

# Compilers may have much to compile the first time.
pytestmark = pytest.mark.timeout(600)

DOCUMENT = ROOT / "docs" / "clients.md"
LANGUAGES = ["bash", "python", "typescript", "go"]
ATTEMPTS = 5
# A compiler and its types, at versions that were tried: what is new may refuse what was right.
TYPESCRIPT = ["typescript@5.9.3", "@types/node@20.19.25"]

STORED: dict[str, Any] = {
    "ok": True,
    "conversationId": str(uuid.UUID(int=1)),
    "messagesStored": 2,
    "analysisQueued": True,
    "warnings": [PENDING, "Custom field 'x' not in schema"],
}
DONE = Answer(200, STORED, {})
LOST = Answer(0, {}, {})


def refused(status: int, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    error = {"code": f"code_{status}", "message": "no"}
    return Answer(status, {"ok": False, "error": error}, named)


def program(language: str) -> str:
    """Return the one program of a language that the document holds."""
    block = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    (found,) = block.findall(DOCUMENT.read_text())
    return str(found)


def tool(name: str) -> str:
    """Return where an optional tool is, or skip."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name} here")
    return found


def run(command: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def built_typescript(folder: Path) -> list[str]:
    """Check the program's types and compile it. Where the compiler can't be had, skip."""
    node, npm = tool("node"), tool("npm")
    install = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    installed = run([*install, *TYPESCRIPT], folder)
    if installed.returncode:
        pytest.skip(f"npm has no TypeScript for us: {installed.stderr.strip()[-200:]}")
    (folder / "capture.ts").write_text(program("typescript"))
    options = ["--strict", "--target", "es2022", "--module", "nodenext", "--types", "node"]
    compiler = [node, "node_modules/typescript/bin/tsc", "--noEmitOnError"]
    compiled = run([*compiler, *options, "capture.ts"], folder)
    assert compiled.returncode == 0, compiled.stdout
    return [node, str(folder / "capture.js")]


def built_go(folder: Path) -> list[str]:
    go = tool("go")
    (folder / "capture.go").write_text(program("go"))
    # Nothing is fetched: neither a toolchain nor a module.
    offline = {"GOTOOLCHAIN": "local", "GOPROXY": "off", "CGO_ENABLED": "0"}
    compiled = run([go, "build", "-o", "capture", "capture.go"], folder, **offline)
    assert compiled.returncode == 0, compiled.stderr
    return [str(folder / "capture")]


def built(language: str, folder: Path) -> list[str]:
    """Return the command that runs a program of the document."""
    if language == "typescript":
        return built_typescript(folder)
    if language == "go":
        return built_go(folder)
    source = folder / "capture"
    source.write_text(program(language))
    # curl and httpx are there wherever the tests run: without them a test fails.
    return ["bash" if language == "bash" else sys.executable, str(source)]


Client = Callable[[str, str], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Client]:
    """Return what runs the program of a language against a gateway, with a key."""
    commands: dict[str, list[str]] = {}

    def client_of(language: str) -> Client:
        if language not in commands:
            commands[language] = built(language, tmp_path_factory.mktemp(language))
        command = commands[language]
        return lambda url, key: run(command, ROOT, OPENBAT_URL=url, OPENBAT_API_KEY=key)

    return client_of


@pytest.fixture(scope="module")
def languages(clients: Callable[[str], Client]) -> list[str]:
    """Return the languages that can be run here."""
    found = []
    for language in LANGUAGES:
        with contextlib.suppress(pytest.skip.Exception):
            clients(language)
            found.append(language)
    return found


@pytest.fixture(params=LANGUAGES)
def client(request: pytest.FixtureRequest, clients: Callable[[str], Client]) -> Client:
    return clients(request.param)


def sent(gateway: FaultyGateway, client: Client) -> subprocess.CompletedProcess[str]:
    done = client(gateway.url, "secret")
    assert {request.path for request in gateway.requests} == {"/api/v1/capture"}
    assert {request.headers["authorization"] for request in gateway.requests} == {"Bearer secret"}
    # What is sent again is the same, to the byte, under the same key.
    assert len({request.body for request in gateway.requests}) == 1
    (key,) = {request.headers["idempotency-key"] for request in gateway.requests}
    assert key
    return done


def assert_stored(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == STORED
    assert "provisional" in done.stderr


def test_a_turn_is_stored_once_however_often_it_is_sent(
    stack: Stack, client: Client, request: pytest.FixtureRequest
) -> None:
    key = stack.make_chatbot(f"client in {request.node.callspec.id}")
    answers = []
    for _ in range(2):
        done = client(stack.gateway_url, key)
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout))
    assert [answer["messagesStored"] for answer in answers] == [2, 0], answers
    assert answers[0]["conversationId"] == answers[1]["conversationId"]
    # Other chatbots' `conv_1` are other conversations.
    query = (
        "SELECT message_id FROM openbat.messages "
        f"WHERE conversation_id = '{answers[0]['conversationId']}' ORDER BY position"
    )
    rows = [{"message_id": "msg_1"}, {"message_id": "msg_2"}]
    assert stack.wait_sql(query, rows) == rows

    done = client(stack.gateway_url, "ob_live_" + "0" * 32)
    assert done.returncode != 0
    assert "401" in done.stderr


def test_it_is_sent_again_and_not_before_retry_after(client: Client) -> None:
    again = refused(503, Retry_After="1"), refused(429, Retry_After="2")
    with faulty_gateway(*again, DONE) as gateway:
        done = sent(gateway, client)
    assert_stored(done)
    at = [request.at for request in gateway.requests]
    assert len(at) == 3
    # A client's clock may be a little ahead of ours.
    assert 0.95 <= at[1] - at[0] <= 5
    assert 1.95 <= at[2] - at[1] <= 6


def test_it_is_sent_again_where_no_answer_came(client: Client) -> None:
    with faulty_gateway(LOST, refused(502), DONE) as gateway:
        done = sent(gateway, client)
    assert_stored(done)
    assert len(gateway.requests) == 3


def test_it_is_sent_again_where_no_answer_came_in_time(
    clients: Callable[[str], Client], languages: list[str]
) -> None:
    """All at once: each waits long."""

    def waited(client: Client) -> float:
        with faulty_gateway(Answer(0, {}, {}, after_seconds=25), DONE) as gateway:
            assert_stored(sent(gateway, client))
            first, second = gateway.requests
            return second.at - first.at

    with ThreadPoolExecutor(len(languages)) as threads:
        for seconds in threads.map(waited, [clients(language) for language in languages]):
            assert 10 <= seconds < 25


@pytest.mark.parametrize("status", [400, 401, 413, 422])
def test_what_would_fail_again_is_not_sent_again(client: Client, status: int) -> None:
    with faulty_gateway(refused(status), DONE) as gateway:
        done = sent(gateway, client)
    assert done.returncode != 0
    assert f"code_{status}" in done.stderr
    assert len(gateway.requests) == 1


def test_it_gives_up_at_some_point(client: Client, request: pytest.FixtureRequest) -> None:
    """And waits a while by chance: programs that failed together don't come back together."""
    with faulty_gateway(refused(503, Retry_After="1")) as gateway:
        done = sent(gateway, client)
    assert done.returncode != 0
    assert "code_503" in done.stderr
    assert len(gateway.requests) == ATTEMPTS
    waited = gateway.requests[-1].at - gateway.requests[0].at
    by_chance = 0.0 if request.node.callspec.id == "bash" else 0.1
    assert ATTEMPTS - 1 - 0.05 + by_chance <= waited
