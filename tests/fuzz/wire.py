"""Bytes sent as they are on a connection of their own, and what comes back."""

import json
import socket
from contextlib import suppress
from typing import Any, NamedTuple

import httptools
import httpx

ANSWER_SECONDS = 10.0
"""Longer than any answer takes: what does not come by then hangs."""


class Answer(NamedTuple):
    """A response, as far as it matters here."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Requests:
    """Reads requests as the gateway's parser does; knows how many are complete, and of which kind.

    `is_broken` is set where what follows them is no HTTP.
    """

    def __init__(self, data: bytes) -> None:
        self.methods: list[str] = []
        self.complete = 0
        self.is_broken = False
        self._parser = httptools.HttpRequestParser(self)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._url = b""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # what follows is not read as HTTP any more
        except httptools.HttpParserError:
            self.is_broken = True

    def on_message_begin(self) -> None:
        self._url = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_headers_complete(self) -> None:
        httptools.parse_url(self._url).path.decode("ascii")
        self.methods.append(self._parser.get_method().decode())

    def on_message_complete(self) -> None:
        self.complete += 1


def exchange(url: httpx.URL, data: bytes) -> list[Answer]:
    """Send bytes; return the answers to the requests in them, all that must come.

    Raises:
        AssertionError: a complete request got no answer, or something else came than an answer.

    """
    requests = _Requests(data)
    expected = requests.complete + requests.is_broken
    answers: list[Answer] = []
    with socket.create_connection((url.host, url.port or 80), timeout=ANSWER_SECONDS) as connection:
        stream = connection.makefile("rb")
        with suppress(ConnectionError):  # it may have been refused before all was sent
            connection.sendall(data)
        try:
            while len(answers) < expected:
                method = requests.methods[len(answers) :][:1]
                answer = _read(stream, without_body=method == ["HEAD"])
                if answer is None:
                    break
                if answer.status >= 200:
                    answers.append(answer)
        except TimeoutError:
            raise AssertionError(f"no answer within {ANSWER_SECONDS} s: {answers}") from None
        except ConnectionError:
            # A reset can take the answer along, where the client was still sending.
            assert requests.is_broken or answers
            return answers
    assert answers or not expected, "no answer"
    return answers


def _read(stream: Any, *, without_body: bool) -> Answer | None:
    """Read one response, None at the end."""
    line = stream.readline()
    if not line:
        return None
    version, status, *_ = line.split(b" ", 2)
    assert version == b"HTTP/1.1", line
    headers = {}
    while (line := stream.readline().rstrip(b"\r\n")) != b"":
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    has_body = not without_body and int(status) >= 200
    length = int(headers["content-length"]) if has_body else 0
    body = stream.read(length)
    assert len(body) == length, "an answer ended early"
    return Answer(int(status), headers, body)


def assert_in_shape(answer: Answer) -> None:
    """Assert that an answer is none of a fault of ours, and in the contract's shape."""
    assert answer.status < 500, answer
    if not answer.body:
        return
    assert answer.headers["content-type"] == "application/json", answer
    found = json.loads(answer.body)
    if answer.status == 200:
        assert found.get("ok") is True or "openapi" in found, answer
    else:
        assert found["ok"] is False, answer
        assert found["error"]["code"], answer
        assert found["error"]["message"], answer
