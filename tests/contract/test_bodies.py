"""Bodies of every kind: bad ones are refused, never a 500, and never spoil what is beside them."""

import asyncio
import gzip
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.contract.client import (
    CAPTURE,
    EXACT,
    LIMIT,
    Bot,
    RawRequest,
    assert_error,
    assert_ok,
    body,
    fields,
    message,
    table,
    unique,
)
from tests.stack import Stack

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DEEP = 100_000


def encoded(capture: Any) -> bytes:
    return json.dumps(capture, ensure_ascii=False).encode()


def capture_with(member: bytes, **values: Any) -> bytes:
    """Return a capture's JSON that has one more member, as it is, before the others."""
    return b"{" + member + b", " + encoded(body(**values))[1:]


def content_of(text: bytes) -> bytes:
    """Return a capture of one message whose content is this JSON."""
    return b'{"conversationId": "%s", "messages": [{"id": "a", "role": "user", "content": %s}]}' % (
        unique().encode(),
        text,
    )


GOOD = encoded({"conversationId": "cut", "messages": [message(content="é")], "x": [1.5, None]})
NOT_JSON: dict[str, bytes] = {
    "empty": b"",
    "space": b" \n\t\r",
    "open": b"{",
    "close": b"}",
    "null cut": b"nul",
    "quoted with '": b"{'conversationId': 'a', 'messages': []}",
    "no quotes": b'{conversationId: "a"}',
    "no colon": b'{"conversationId" "a"}',
    "no value": b'{"conversationId":}',
    "no comma": b'{"a": 1 "b": 2}',
    "Python": str(body()).encode(),
    "form": b"conversationId=a&messages=b",
    "XML": b"<capture/>",
    "NUL": b"\0",
    "NUL after": encoded(body()) + b"\0",
    "comma after": encoded(body()) + b",",
    "text after": encoded(body()) + b"x",
    "two": encoded(body()) * 2,
    "lines": encoded(body()) + b"\n" + encoded(body()),
    "brace after": encoded(body()) + b"}",
    "comma last": encoded(body())[:-1] + b",}",
    "comma last in array": capture_with(b'"x": [1,]'),
    "comment": capture_with(b'/* x */ "x": 1'),
    "UTF-16": encoded(body()).decode().encode("utf-16"),
    "UTF-16 LE": encoded(body()).decode().encode("utf-16-le"),
    "UTF-16 BE": encoded(body()).decode().encode("utf-16-be"),
    "UTF-32": encoded(body()).decode().encode("utf-32"),
    "Latin-1": encoded(body(message(content="é"))).decode().encode("latin-1"),
    "gzip unsaid": gzip.compress(encoded(body())),
    **{f"cut at {end}": GOOD[:end] for end in range(1, len(GOOD), 4)},
}
BAD_VALUES: dict[str, bytes] = {
    "NaN": b"NaN", "Infinity": b"Infinity", "-Infinity": b"-Infinity", "nan": b"nan",
    "01": b"01", "+1": b"+1", ".5": b".5", "1.": b"1.", "1e": b"1e", "1e+": b"1e+", "-": b"-",
    "0x10": b"0x10", "1_000": b"1_000", "True": b"True", "None": b"None", "undefined": b"undefined",
    "raw newline": b'"a\nb"', "raw NUL": b'"a\0b"', "raw 1f": b'"\x1f"', "escape x": b'"\\x41"',
    "escape u cut": b'"\\u12"', "escape u g": b'"\\u12g4"', "escape 0": b'"\\0"', "open": b'"abc',
    "single": b"'a'",
}  # fmt: skip
NOT_UTF8: dict[str, bytes] = {
    "lone ff": b"\xff", "lone continuation": b"\x80", "cut": b"\xe6\xbc", "overlong": b"\xc0\xaf",
    "overlong NUL": b"\xc0\x80", "surrogate": b"\xed\xa0\x80", "CESU": b"\xed\xa0\xbd\xed\xb8\x80",
    "over 10ffff": b"\xf4\x90\x80\x80", "five bytes": b"\xf8\x88\x80\x80\x80", "Latin-1": b"\xe9",
}  # fmt: skip
PLACES: dict[str, Callable[[bytes], bytes]] = {
    "content": content_of,
    "custom": lambda value: capture_with(b'"custom": {"a": %s}' % value),
    "mrr": lambda value: capture_with(b'"user": {"mrr": %s}' % value),
    "unknown member of user": lambda value: capture_with(b'"user": {"other": %s}' % value),
    "ignored": lambda value: capture_with(b'"other": %s' % value),
    "ignored and deep": lambda value: capture_with(b'"other": [[{"a": [0, %s]}]]' % value),
}
NAMES: dict[str, Callable[[bytes], bytes]] = {
    "name in custom": lambda name: capture_with(b'"custom": {"%s": 1}' % name),
    "name in user": lambda name: capture_with(b'"user": {"%s": 1}' % name),
    "ignored name": lambda name: capture_with(b'"%s": 1' % name),
    "ignored and deep name": lambda name: capture_with(b'"other": [{"%s": 1}]' % name),
    "after the end": lambda name: encoded(body()) + name,
    "before the start": lambda name: name + encoded(body()),
}


def in_places() -> dict[str, bytes]:
    found = {
        f"{what} in {where}": place(value)
        for what, value in BAD_VALUES.items()
        for where, place in PLACES.items()
    }
    for what, raw in NOT_UTF8.items():
        found |= {f"{what} in {where}": place(b'"a%sb"' % raw) for where, place in PLACES.items()}
        found |= {f"{what} in {where}": place(raw) for where, place in NAMES.items()}
    return found


@table({**NOT_JSON, **in_places()})
def test_what_is_not_utf8_json_is_400(bot: Bot, case: bytes) -> None:
    assert_error(bot.post_bytes(case), 400)


@pytest.mark.parametrize("text", ["null", "true", "1", "1e5", '""', '"x"', "[]", "[{}]"])
def test_what_is_not_an_object_is_400(bot: Bot, text: str) -> None:
    assert_error(bot.post_bytes(text.encode()), 400)


def test_an_empty_object_is_400(bot: Bot) -> None:
    assert_error(bot.post_bytes(b"{}"), 400)


def test_a_byte_order_mark_is_refused_or_skipped(bot: Bot) -> None:
    answer = bot.post_bytes(b"\xef\xbb\xbf" + encoded(body()))
    if answer.status_code == 200:
        assert_ok(answer, stored=1)
    else:
        assert_error(answer, 400)


NESTS: dict[str, Callable[[int], bytes]] = {
    "arrays": lambda depth: b"[" * depth + b"]" * depth,
    "objects": lambda depth: b'{"a":' * depth + b"1" + b"}" * depth,
    "arrays open": lambda depth: b"[" * depth,
    "objects open": lambda depth: b'{"a":' * depth,
    "mixed": lambda depth: b'[{"a":' * (depth // 2) + b"1" + b"}]" * (depth // 2),
}
DEEP_PLACES: dict[str, Callable[[bytes], bytes]] = {
    **PLACES,
    "conversationId": lambda value: b'{"conversationId": %s}' % value,
    "messages": lambda value: b'{"conversationId": "a", "messages": %s}' % value,
    "user": lambda value: capture_with(b'"user": %s' % value),
    "metadata": lambda value: capture_with(b'"metadata": {"a": %s}' % value),
    "unknown member of a message": lambda value: (
        b'{"conversationId": "a", "messages": [{"x": %s, "role": "user", "content": ""}]}' % value
    ),
    "all": lambda value: value,
}


@pytest.mark.parametrize("nest", NESTS)
@pytest.mark.parametrize("place", DEEP_PLACES)
def test_too_deep_is_400(bot: Bot, nest: str, place: str) -> None:
    content = DEEP_PLACES[place](NESTS[nest](DEEP))
    started = time.monotonic()
    assert_error(bot.post_bytes(content), 400)
    assert time.monotonic() - started < 5


DEPTHS = [8, 16, 32, 60, 100, 130, 200, 260, 500, 520, 900, 1000, 1030, 2000, 5000]


@pytest.fixture(scope="module")
def nested(bot: Bot) -> dict[tuple[str, int], httpx.Response]:
    """Post an unknown member of user, nested ever deeper."""
    return {
        (nest, depth): bot.post_bytes(PLACES["unknown member of user"](NESTS[nest](depth)))
        for nest in ("arrays", "objects")
        for depth in DEPTHS
    }


@pytest.mark.parametrize("nest", ["arrays", "objects"])
@pytest.mark.parametrize("depth", DEPTHS)
def test_what_is_not_refused_as_too_deep_is_stored(
    bot: Bot, nested: dict[tuple[str, int], httpx.Response], nest: str, depth: int
) -> None:
    """Wherever the bound is, no reader behind the gateway has a lower one."""
    answer = nested[nest, depth]
    if depth <= 16:
        assert_ok(answer)
    if answer.status_code == 400:
        assert_error(answer, 400)
        return
    assert_ok(answer, stored=1)
    kept = bot.conversation(answer)["user_other"].encode().replace(b" ", b"")
    assert kept == b'{"other":%s}' % NESTS[nest](depth)


@table(
    {
        "high": rb'"\ud800"',
        "low": rb'"\udc00"',
        "swapped": rb'"\udc00\ud800"',
        "high and text": rb'"\ud800abc"',
        "high and escape": rb'"\ud800\n"',
        "two high": rb'"\ud83d\ud83d\ude00"',
    }
)
@pytest.mark.parametrize("place", ["content", "custom", "unknown member of user", "ignored"])
def test_a_lone_surrogate_is_400(bot: Bot, case: bytes, place: str) -> None:
    assert_error(bot.post_bytes(PLACES[place](case)), 400)


def test_a_surrogate_pair_is_one_character(bot: Bot) -> None:
    answer = bot.post_bytes(content_of(rb'"\ud83d\ude00"'))
    assert_ok(answer, stored=1)
    assert bot.messages(answer, 1)[0]["content"] == "😀"


CONTENTS: dict[str, str] = {
    "NUL": "a\0b",
    "only NUL": "\0",
    "controls": "".join(map(chr, range(0x20))),
    "delete and C1": "\x7f\x80\x85\x9f",
    "separators": "\u2028\u2029\ufeff",
    "noncharacters": "\uffff\ufffe\U0010ffff",
    "replacement": "\ufffd",
    "emoji": "👩‍👩‍👧‍👦😀",
    "right to left": "שלום \u202e",
    "combining": "e\u0301" * 50,
    "quotes": "\"'`\\",
    "escapes": r"\n \t \0 \N \\ \u0041 %00",
    "TSV null": r"\N",
    "SQL": "'); DROP TABLE openbat.messages; --",
    "JSON": '{"a": [1, "b"]}',
    "HTML": "<script>alert(1)</script>&amp;",
    "placeholders": "{{x}} ${x} %s {} {0}",
    "line ends": "a\r\nb\rc\n",
    "spaces": "  a  ",
    "large": "漢字" * 100_000,
}


@pytest.fixture(scope="module")
def said(bot: Bot) -> dict[str, httpx.Response]:
    """Post each text as content, id, conversationId, user.name and custom."""
    found = {}
    for name, text in CONTENTS.items():
        short = text[:200]
        item = message(id=short, content=text)
        capture = body(item, conversationId=short, user={"name": short, "x": short})
        found[name] = bot.post({**capture, "custom": {short: short}})
    return found


@pytest.mark.parametrize("name", CONTENTS)
def test_text_is_kept_as_it_is(bot: Bot, said: dict[str, httpx.Response], name: str) -> None:
    text, short = CONTENTS[name], CONTENTS[name][:200]
    assert_ok(said[name], stored=1)
    assert bot.messages(said[name], 1)[0]["content"] == text
    row = bot.conversation(said[name])
    assert (row["external_conversation_id"], row["user_name"]) == (short, short)
    assert fields(row["user_other"]) == {"x": short}
    assert fields(row["custom"]) == {short: short}


@pytest.mark.parametrize("group", ["user", "organization", "session", "custom", "metadata"])
def test_the_path_of_a_number_no_double_holds(bot: Bot, group: str) -> None:
    content = capture_with(b'"%s": {"a": 1%s}' % (group.encode(), b"0" * 400))
    assert_error(bot.post_bytes(content), 400, f"$.{group}.a")


@pytest.mark.parametrize("text", ["1e400", "-1e400", "1" + "0" * 400, "1e99999999999", "9" * 5000])
@pytest.mark.parametrize("place", ["custom", "mrr", "unknown member of user", "ignored"])
def test_a_number_no_double_holds_is_refused_or_harmless(bot: Bot, text: str, place: str) -> None:
    """What is taken all the same must be readable as JSON, without infinities."""
    answer = bot.post_bytes(PLACES[place](text.encode()))
    if answer.status_code == 400:
        assert_error(answer, 400)
        return
    assert_ok(answer, stored=1)
    if place == "ignored":
        return
    row = bot.conversation(answer)
    fields(row["custom"])
    fields(row["user_other"])
    assert row["user_mrr"] is None


def last(member: bytes) -> bytes:
    return b'{"conversationId": "%s", %s}' % (unique().encode(), member)


@table(
    {
        "content": (
            last(b'"messages": [{"role": "user", "content": "first", "content": "last"}]'),
            ("user", "last"),
        ),
        "role": (
            last(b'"messages": [{"role": "user", "content": "x", "role": "assistant"}]'),
            ("assistant", "x"),
        ),
        "messages": (
            last(
                b'"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],'
                b'"messages": [{"role": "system", "content": "c"}]'
            ),
            ("system", "c"),
        ),
    }
)
def test_of_members_with_one_name_the_last_wins(
    bot: Bot, case: tuple[bytes, tuple[str, str]]
) -> None:
    content, expected = case
    answer = bot.post_bytes(content)
    assert_ok(answer, stored=1)
    row = bot.messages(answer, 1)[0]
    assert (row["role"], row["content"]) == expected


def test_the_last_wins_at_any_depth(bot: Bot) -> None:
    name = unique()
    content = encoded(body(conversationId=name))[:-1] + (
        b', "user": {"name": "gone", "email": "gone"}'
        b', "user": {"name": "first", "name": "last", "x": 1, "x": {"a": 1, "a": 2}}'
        b', "custom": {"gone": 1}, "custom": {"a": 1, "a": "last"}}'
    )
    first = b'{"conversationId": "first", ' + content[1:]
    answer = bot.post_bytes(first)
    assert_ok(answer, stored=1, warnings=["Custom field 'a' not in schema"])
    row = bot.conversation(answer)
    assert row["external_conversation_id"] == name
    assert (row["user_name"], row["user_email"]) == ("last", None)
    assert fields(row["user_other"]) == {"x": {"a": 2}}
    assert fields(row["custom"]) == {"a": "last"}


def of_size(size: int) -> bytes:
    """Return a capture of that many bytes."""
    start = content_of(b'"')[:-2]
    return start + b"x" * (size - len(start) - 4) + b'"}]}'


def chunks(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), 65536):
        yield content[start : start + 65536]


def as_is(content: bytes) -> bytes:
    return content


Encoder = Callable[[bytes], bytes]
ENCODINGS: dict[str, Encoder] = {"identity": as_is, "gzip": gzip.compress, "zstd": zstd.compress}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_the_largest_body_is_taken_and_one_byte_more_is_413(
    bot: Bot, encoding: str, chunked: bool
) -> None:
    """The limit is that of the body after decompression."""
    encode = ENCODINGS[encoding]
    for size, status in [(LIMIT, 200), (LIMIT + 1, 413)]:
        content = encode(of_size(size))
        answer = bot.post_bytes(chunks(content) if chunked else content, Content_Encoding=encoding)
        if status == 413:
            assert_error(answer, 413)
        else:
            assert_ok(answer, stored=1, warnings=[])
            stored = bot.messages(answer, 1)[0]["content"]
            assert len(content_of(json.dumps(stored).encode())) == LIMIT
    bot.assert_works()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_body_over_the_limit_as_it_is_sent_is_413(bot: Bot, encoding: str, chunked: bool) -> None:
    """What doesn't compress is over the limit before and after."""
    text = encoded(body(message(content=os.urandom(2 * LIMIT).hex())))
    content = ENCODINGS[encoding](text)
    assert len(content) > LIMIT
    answer = bot.post_bytes(chunks(content) if chunked else content, Content_Encoding=encoding)
    assert_error(answer, 413)
    bot.assert_works()


def test_413_waits_for_no_body(bot: Bot, stack: Stack) -> None:
    started = time.monotonic()
    assert_error(RawRequest(stack, bot.key, Content_Length=str(LIMIT + 1)).answer(), 413)
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("closed", [True, False], ids=["whole", "cut"])
def test_a_bomb_is_413_at_once(bot: Bot, encoding: str, closed: bool) -> None:
    content = ENCODINGS[encoding](b'{"x": "' + b"\0" * 64 * LIMIT)
    assert len(content) < LIMIT
    started = time.monotonic()
    answer = bot.post_bytes(content if closed else content[:-8], Content_Encoding=encoding)
    assert_error(answer, 413)
    assert time.monotonic() - started < 2
    bot.assert_works()


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_body_of_very_many_members_is_decided_at_once(bot: Bot, encoding: str) -> None:
    """What a gateway does for one body, all others wait for."""
    member = ENCODINGS[encoding](b"")
    content = member * (LIMIT // len(member))
    started = time.monotonic()
    assert_error(bot.post_bytes(content, Content_Encoding=encoding), 400)
    assert time.monotonic() - started < 4
    bot.assert_works()


def test_a_body_that_hides_its_size_is_413(bot: Bot) -> None:
    """Two gzip members, each within the limit; together they are not."""
    whole = of_size(LIMIT + 2000)
    content = gzip.compress(whole[:LIMIT]) + gzip.compress(whole[LIMIT:])
    assert_error(bot.post_bytes(content, Content_Encoding="gzip"), 413)


def small() -> bytes:
    return encoded(body(message(content="é" * 500)))


def split(encode: Encoder) -> bytes:
    content = small()
    return b"".join(encode(content[start : start + 99]) for start in range(0, len(content), 99))


def streamed() -> bytes:
    """Return a zstd frame that doesn't say how large its content is."""
    stream = zstd.ZstdCompressor()
    return stream.compress(small()) + stream.flush()


@table(
    {
        "gzip": (lambda: gzip.compress(small()), "gzip"),
        "gzip, best": (lambda: gzip.compress(small(), 9), "gzip"),
        "gzip, stored": (lambda: gzip.compress(small(), 0), "gzip"),
        "gzip in capitals": (lambda: gzip.compress(small()), "GZIP"),
        "gzip of several members": (lambda: split(gzip.compress), "gzip"),
        "gzip with an empty member": (lambda: gzip.compress(b"") + gzip.compress(small()), "gzip"),
        "zstd": (lambda: zstd.compress(small()), "zstd"),
        "zstd, best": (lambda: zstd.compress(small(), 19), "zstd"),
        "zstd in capitals": (lambda: zstd.compress(small()), "ZSTD"),
        "zstd, streamed": (streamed, "zstd"),
        "zstd of several frames": (lambda: split(zstd.compress), "zstd"),
        "identity": (small, "identity"),
        "identity in capitals": (small, "Identity"),
    }
)
def test_an_encoded_body_is_decoded(bot: Bot, case: tuple[Callable[[], bytes], str]) -> None:
    make, encoding = case
    answer = bot.post_bytes(make(), Content_Encoding=encoding)
    assert_ok(answer, stored=1, warnings=[])


def spoilt(content: bytes, place: int) -> bytes:
    """Return the content with one byte changed."""
    place %= len(content)
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


CHECKED: dict[int, int] = {zstd.CompressionParameter.checksum_flag: 1}
GZIPPED, ZSTDED = gzip.compress(GOOD), zstd.compress(GOOD, options=CHECKED)


@table(
    {
        **{
            f"{name}, {what}": (content, name)
            for name, whole in (("gzip", GZIPPED), ("zstd", ZSTDED))
            for what, content in {
                "empty": b"",
                "plain": GOOD,
                "cut in its head": whole[:3],
                "cut": whole[: len(whole) // 2],
                "cut before its end": whole[:-1],
                "text after": whole + b"x",
                "NUL after": whole + b"\0",
                "garbage after": whole + b"garbage after the end",
                "cut member after": whole + whole[:-5],
                "wrong sum": spoilt(whole, -1 if name == "zstd" else -6),
                "spoilt": spoilt(whole, len(whole) // 2),
                "not JSON": ENCODINGS[name](b"not JSON"),
                "nothing in it": ENCODINGS[name](b""),
                "twice": ENCODINGS[name](whole),
                "cut JSON": ENCODINGS[name](GOOD[:-1]),
                "JSON twice": whole + whole,
            }.items()
        },
        "gzip, wrong length": (spoilt(GZIPPED, -1), "gzip"),
        "gzip of zstd": (ZSTDED, "gzip"),
        "zstd of gzip": (GZIPPED, "zstd"),
    }
)
def test_what_does_not_decode_is_400(bot: Bot, case: tuple[bytes, str]) -> None:
    content, encoding = case
    assert_error(bot.post_bytes(content, Content_Encoding=encoding), 400)


def test_a_good_capture_after_all_of_these_works(bot: Bot) -> None:
    bot.assert_works()


async def test_bad_captures_take_no_neighbour_with_them(bot: Bot) -> None:
    """Good and bad at once, which a gateway may well send to the log in one batch."""
    run = unique()
    bad = list(in_places().values())[::5][:40]
    bad += [PLACES["unknown member of user"](NESTS["arrays"](DEEP))] * 3
    headers = {"Authorization": f"Bearer {bot.key}", "Content-Type": "application/json", **EXACT}
    async with httpx.AsyncClient(
        base_url=bot.stack.gateway_url, headers=headers, timeout=60
    ) as client:

        async def post(number: int) -> None:
            good = body(message(id="a"), message(id="b"), conversationId=f"{run}-{number}")
            answers = await asyncio.gather(
                client.post(CAPTURE, content=bad[number]),
                client.post(CAPTURE, content=encoded(good)),
            )
            assert_error(answers[0], 400)
            assert_ok(answers[1], stored=2, warnings=[])

        await asyncio.gather(*map(post, range(len(bad))))
    query = (
        "SELECT count() AS rows FROM openbat.messages "
        f"WHERE startsWith(external_conversation_id, '{run}-')"
    )
    expected = [{"rows": 2 * len(bad)}]
    assert await asyncio.to_thread(bot.stack.wait_sql, query, expected, 10) == expected


async def test_a_capture_of_very_many_fields_delays_nobody(bot: Bot) -> None:
    """What doesn't fit into the conversation is left out, and the answers come at once."""
    many = encoded(body(custom={f"f{number}": 1 for number in range(60_000)}))
    assert len(many) < LIMIT
    headers = {"Authorization": f"Bearer {bot.key}", "Content-Type": "application/json", **EXACT}
    async with httpx.AsyncClient(
        base_url=bot.stack.gateway_url, headers=headers, timeout=60
    ) as client:
        started = time.monotonic()

        async def post(content: bytes) -> float:
            assert_ok(await client.post(CAPTURE, content=content), stored=1)
            return time.monotonic() - started

        large = asyncio.create_task(post(many))
        await asyncio.sleep(0.2)
        small = [post(encoded(body())) for _ in range(30)]
        seconds = await asyncio.gather(large, *small)
    assert max(seconds[1:]) < 3
    assert seconds[0] < 5
