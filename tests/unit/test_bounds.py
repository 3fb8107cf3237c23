"""What is bounded, and what happens at the bound. docs/bounds.md lists them all."""

import gzip
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from gateway import limits
from gateway.body import Bodies, Held, read_body
from gateway.errors import RefusedError
from gateway.head import Head
from gateway.registry import Registry
from openbat import chatbots, importer, kafka
from openbat.chatbots import ChatbotError
from openbat.connection import Connection
from schemas.chatbots import MAX_CUSTOM_FIELDS
from tests.stack import ROOT
from tests.unit.test_gateway import chatbot, entry

MIB = 1 << 20
TABLES = ROOT / "docs" / "bounds.md"


def test_every_name_in_the_tables_is_in_the_file_that_its_row_names() -> None:
    rows = [line for line in TABLES.read_text().splitlines() if line.startswith("| ")]
    for row in rows:
        code = re.findall(r"`([^`]+)`", row)
        files = [(ROOT / name).read_text() for name in code if name.endswith(".py")]
        for name in code:
            if name.isupper() and not name.startswith("OPENBAT_"):
                assert any(f"{name} = " in text for text in files), row
    assert len(rows) > 40


def request(*chunks: bytes, **headers: str) -> Request:
    parts = iter([{"type": "http.request", "body": part, "more_body": True} for part in chunks])

    async def receive() -> Any:
        return next(parts, {"type": "http.request", "body": b"", "more_body": False})

    named = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": named}, receive)


async def read(made: Request, held: Held) -> bytes:
    return await read_body(made, Head(made), MIB, held)


async def test_bodies_under_way_are_bounded_together_and_make_room_when_answered() -> None:
    bodies = Bodies(100)
    with Held(bodies) as first:
        assert len(await read(request(b"x" * 30, b"x" * 30), first)) == 60
        with Held(bodies) as second:
            with pytest.raises(RefusedError) as refused:
                await read(request(b"x" * 30, b"x" * 30), second)
            assert (refused.value.status, refused.value.code) == (503, "overloaded")
            assert bodies.held_bytes == 90
        assert bodies.held_bytes == 60
    assert bodies.held_bytes == 0


async def test_a_body_counts_as_it_is_sent_and_as_it_is_decompressed() -> None:
    bodies = Bodies(1_000)
    packed = gzip.compress(b"x" * 900)
    with Held(bodies) as held:
        await read(request(packed, **{"content-encoding": "gzip"}), held)
        assert bodies.held_bytes == len(packed) + 900
    with Held(bodies) as held, pytest.raises(RefusedError):
        await read(request(gzip.compress(b"x" * 1_000), **{"content-encoding": "gzip"}), held)


def test_parsed_rates_are_bounded() -> None:
    for number in range(limits.MAX_RATES + 10):
        item = limits.parsed(f"{number + 1}/minute")
        assert item is not None
        assert item.amount == number + 1
    assert limits.parsed.cache_info().currsize == limits.MAX_RATES


async def test_there_are_only_so_many_chatbots(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry()
    for number in (1, 2):
        registry.apply(*entry(chatbot(number, key=chatbots.new_key())))

    async def edit(_: Connection, change: Any) -> Any:
        return change(registry)

    monkeypatch.setattr(chatbots, "edit_registry", edit)
    monkeypatch.setattr(chatbots, "MAX_CHATBOTS", 3)
    made = await chatbots.create(Connection("nowhere"), "third", chatbots.new_key())
    registry.apply(*entry(made))
    with pytest.raises(ChatbotError, match="3 chatbots"):
        await chatbots.create(Connection("nowhere"), "fourth", chatbots.new_key())
    assert kafka.edit_registry is not edit


def test_a_schema_has_only_so_many_fields_of_so_long_a_name() -> None:
    most = {f"field{number}": "string" for number in range(MAX_CUSTOM_FIELDS)}
    full = chatbots.with_schema(chatbot(), most)
    with pytest.raises(ChatbotError, match="1000 fields"):
        chatbots.with_schema(full, {"one more": "string"})
    with pytest.raises(ChatbotError, match="255 characters"):
        chatbots.with_schema(chatbot(), {"x" * 256: "string"})


def test_a_line_that_is_too_long_is_cut_and_the_next_one_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importer, "MAX_LINE_BYTES", 10)
    file = tmp_path / "lines"
    file.write_bytes(b"short\n" + b"x" * 35 + b"\nexactly10\n" + b"y" * 11)
    with importer._open(str(file)) as lines:
        assert list(lines) == [b"short\n", b"x" * 11, b"exactly10\n", b"y" * 11]
