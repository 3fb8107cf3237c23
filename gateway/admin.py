"""The admin API: chatbots are listed, made and changed over HTTP, by who has the admin key.

It decides who may, what is asked and how it is answered; what is done to the registry is handed in.
"""

import hashlib
import hmac
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

import msgspec
import structlog
from msgspec import UNSET
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.admin_registry import Chatbots, Written, unknown_chatbot
from gateway.admin_types import (
    MAX_PAGE,
    ChatbotAnswer,
    ChatbotKeyAnswer,
    ChatbotPatch,
    ChatbotsAnswer,
    ChatbotView,
    NewChatbot,
)
from gateway.body import Bodies, Held, check_content_type, read_body
from gateway.chatbot_settings import SettingsPatch, merged
from gateway.custom_fields import merged_fields
from gateway.errors import RefusedError, bad_request, unauthorized
from gateway.head import Head
from gateway.json_body import decoded
from schemas import sizes
from schemas.chatbots import Chatbot, ChatbotSettings

log = structlog.get_logger()

T = TypeVar("T")

CHATBOTS = "/api/v1/chatbots"
CHATBOT = CHATBOTS + "/{id}"
ROTATE_KEY = CHATBOT + "/rotate-key"

BODY_BYTES = 256 * sizes.KIB
"""Room for two full vocabularies, however they are escaped."""
MAX_BODIES_BYTES = 4 * sizes.MIB
_MAX_DIGITS = 9

_encode = msgspec.json.Encoder().encode
_new_chatbot = msgspec.json.Decoder(NewChatbot).decode
_patch = msgspec.json.Decoder(ChatbotPatch).decode


class AdminApi:
    """Answers for chatbots.

    Args:
        key: the admin key, None where there is to be no admin API.
        chatbots: returns the registry; raises RefusedError, 503, while it is not read yet.

    """

    def __init__(self, key: str | None, chatbots: Callable[[], Chatbots]) -> None:
        self._key_sha256 = None if key is None else _sha256(key)
        self._chatbots = chatbots
        self._bodies = Bodies(MAX_BODIES_BYTES)

    def routes(self) -> list[Route]:
        return [
            Route(CHATBOTS, self._collection, methods=["GET", "POST"]),
            Route(CHATBOT, self._one, methods=["GET", "PATCH", "DELETE"]),
            Route(ROTATE_KEY, self._rotate_key, methods=["POST"]),
        ]

    async def _collection(self, request: Request) -> Response:
        chatbots = self._admitted(request)
        if request.method != "POST":
            return _list(request, chatbots)
        new = await self._body(request, _new_chatbot)
        written, key = await chatbots.create(new.name)
        location = f"{CHATBOTS}/{written.chatbot.id}"
        return _with_key("created", written, key, 201, {"Location": location})

    async def _one(self, request: Request) -> Response:
        chatbots = self._admitted(request)
        chatbot_id = _id_of(request)
        if request.method == "PATCH":
            patch = await self._body(request, _patch)
            return _changed("changed", await chatbots.change(chatbot_id, _change_of(patch)))
        if request.method == "DELETE":
            return _changed("archived", await chatbots.archive(chatbot_id))
        return _answer(ChatbotAnswer(True, ChatbotView.of(chatbots.get(chatbot_id))))

    async def _rotate_key(self, request: Request) -> Response:
        chatbots = self._admitted(request)
        written, key = await chatbots.rotate_key(_id_of(request))
        return _with_key("key rotated", written, key, 200, {})

    def _admitted(self, request: Request) -> Chatbots:
        """Return the registry to who may see it.

        Raises:
            RefusedError: 404 there is no admin API, 401 not the admin key, 503 not ready.

        """
        if self._key_sha256 is None:
            raise RefusedError(
                404, "admin_off", "There is no admin API here: set OPENBAT_ADMIN_KEY to have one."
            )
        scheme, _, key = (Head(request).get(b"authorization") or "").partition(" ")
        # Hashes are of one length, so nothing tells how long the key is either.
        is_key = hmac.compare_digest(_sha256(key.strip()), self._key_sha256)
        if scheme.lower() != "bearer" or not is_key:
            raise unauthorized(
                "Send the admin key, Authorization: Bearer ...; a chatbot's key is not one."
            )
        return self._chatbots()

    async def _body(self, request: Request, decode: Callable[[str], T]) -> T:
        head = Head(request)
        check_content_type(head.get(b"content-type"))
        with Held(self._bodies) as held:
            try:
                body = await read_body(request, head, BODY_BYTES, held)
            except RefusedError as error:
                if error.status != 413:
                    raise
                message = f"The body is over {BODY_BYTES} bytes."
                raise RefusedError(413, error.code, message, headers=error.headers) from None
            return decoded(decode, body)


def _sha256(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _id_of(request: Request) -> UUID:
    try:
        return UUID(request.path_params["id"])
    except ValueError:
        raise unknown_chatbot() from None


def _change_of(patch: ChatbotPatch) -> Callable[[Chatbot], Chatbot]:
    """Return what a patch does to a chatbot. Raises RefusedError, 400, where it can't be."""
    settings = SettingsPatch() if patch.settings is UNSET else patch.settings
    # Whether it can be is no matter of the chatbot: it is told before anything is written.
    merged(ChatbotSettings(), settings)
    merged_fields({}, settings.custom_fields)

    def change(chatbot: Chatbot) -> Chatbot:
        return replace(
            chatbot,
            name=chatbot.name if patch.name is UNSET else patch.name,
            settings=merged(chatbot.settings, settings),
            schema=merged_fields(chatbot.schema, settings.custom_fields),
        )

    return change


def _list(request: Request, chatbots: Chatbots) -> Response:
    page = _number_of(request, "page", 1, 10**_MAX_DIGITS - 1)
    limit = _number_of(request, "limit", MAX_PAGE, MAX_PAGE)
    every = chatbots.every()
    begin = (page - 1) * limit
    shown = [ChatbotView.of(chatbot) for chatbot in every[begin : begin + limit]]
    return _answer(ChatbotsAnswer(True, shown, page, limit, len(every)))


def _number_of(request: Request, name: str, default: int, most: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    # Python refuses to read a number of thousands of digits.
    usable = text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS
    if not usable or not 1 <= int(text) <= most:
        raise bad_request("invalid_query", f"{name}: expected a whole number from 1 to {most}")
    return int(text)


def _changed(what: str, written: Written) -> Response:
    _log(what, written)
    answer = ChatbotAnswer(True, ChatbotView.of(written.chatbot))
    return _answer(answer, 200 if written.in_force else 202)


def _with_key(
    what: str, written: Written, key: str, status: int, headers: dict[str, str]
) -> Response:
    _log(what, written)
    answer = ChatbotKeyAnswer(True, ChatbotView.of(written.chatbot), key)
    return _answer(answer, status if written.in_force else 202, headers)


def _log(what: str, written: Written) -> None:
    log.info(
        "chatbot changed by the admin API",
        what=what, chatbot=written.chatbot.id, in_force=written.in_force,
    )  # fmt: skip


def _answer(
    body: ChatbotAnswer | ChatbotKeyAnswer | ChatbotsAnswer,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Response:
    headers = {"Cache-Control": "no-store", **(headers or {})}
    return Response(_encode(body), status, headers, media_type="application/json")
