"""What the admin API does to the registry: the same as `openbat chatbots`, then a look back."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from aiokafka.errors import KafkaError

from gateway.admin_registry import Written, unknown_chatbot
from gateway.errors import RefusedError, bad_request, unavailable
from gateway.registry import Registry
from openbat import chatbots
from openbat.connection import Connection, UnreachableError
from openbat.local.demo import keep_demo_key
from schemas.chatbots import Chatbot

log = structlog.get_logger()

WRITE_SECONDS = 20.0
"""How long a write may take, the ones before it included."""
MAX_WRITES = 100
"""Writes that wait for the ones before them."""
LOOK_BACK_SECONDS = 5.0
"""How long an answer waits for this gateway to go by what was written."""
_LOOK_SECONDS = 0.005


class RegistryChatbots:
    """The registry, for `gateway.admin`.

    Args:
        connection: to Kafka.
        registry: this gateway's own, which follows the topic.
        data_dir: where a local stack keeps the key of `demo`.
        writing: held by who writes the registry. Writers fence each other out: those of one gateway
            need not.

    """

    def __init__(
        self, connection: Connection, registry: Registry, data_dir: Path, writing: asyncio.Lock
    ) -> None:
        self._connection = connection
        self._registry = registry
        self._data_dir = data_dir
        self._writing = writing
        self._writes = 0

    def every(self) -> list[Chatbot]:
        return self._registry.chatbots()

    def get(self, chatbot_id: UUID) -> Chatbot:
        chatbot = self._registry.chatbot(chatbot_id.bytes)
        if chatbot is None:
            raise unknown_chatbot()
        return chatbot

    async def create(self, name: str) -> tuple[Written, str]:
        key = chatbots.new_key()
        return await self._write(lambda: chatbots.create(self._connection, name, key)), key

    async def rotate_key(self, chatbot_id: UUID) -> tuple[Written, str]:
        key = chatbots.new_key()
        written = await self.change(chatbot_id, lambda bot: chatbots.with_key(bot, key))
        await asyncio.to_thread(keep_demo_key, self._data_dir, written.chatbot, key)
        return written, key

    async def archive(self, chatbot_id: UUID) -> Written:
        return await self.change(chatbot_id, chatbots.archived)

    async def change(self, chatbot_id: UUID, change: Callable[[Chatbot], Chatbot]) -> Written:
        return await self._write(lambda: chatbots.update(self._connection, chatbot_id, change))

    async def _write(self, write: Callable[[], Coroutine[Any, Any, Chatbot]]) -> Written:
        if self._writes >= MAX_WRITES:
            raise unavailable("overloaded", "Too many changes are under way: send it again.")
        self._writes += 1
        try:
            async with asyncio.timeout(WRITE_SECONDS) as deadline, self._writing:
                chatbot = await write()
                deadline.reschedule(None)
                return Written(chatbot, await self._looked_back(chatbot))
        except TimeoutError:
            raise unavailable(
                "not_confirmed",
                "The log did not confirm the change in time; it may or may not have been made: "
                "look before you send it again.",
            ) from None
        except (KafkaError, UnreachableError) as error:
            log.warning("a chatbot can't be changed", error=str(error))
            raise unavailable(
                "log_away", "The log does not answer; look before you send it again."
            ) from None
        except chatbots.ChatbotError as error:
            raise _refused(error) from None
        finally:
            self._writes -= 1

    async def _looked_back(self, chatbot: Chatbot) -> bool:
        """Wait until this gateway goes by what was written; False where that takes too long.

        A first capture that is noted in between changes nothing of that.
        """
        key = UUID(chatbot.id).bytes
        end = asyncio.get_running_loop().time() + LOOK_BACK_SECONDS
        written = chatbots.without_first_capture(chatbot)

        def in_force() -> bool:
            known = self._registry.chatbot(key)
            return known is not None and chatbots.without_first_capture(known) == written

        while not in_force():
            if asyncio.get_running_loop().time() > end:
                return False
            # The registry is looked at by every capture and tells nobody of its changes.
            await asyncio.sleep(_LOOK_SECONDS)
        return True


def _refused(error: chatbots.ChatbotError) -> RefusedError:
    """Return the answer that an error of the registry is."""
    if isinstance(error, chatbots.UnknownChatbotError):
        return unknown_chatbot()
    if isinstance(error, chatbots.WrongNameError):
        return bad_request("invalid_name", _sentence(error), "$.name")
    if isinstance(error, chatbots.NameTakenError):
        return RefusedError(409, "name_taken", _sentence(error), "$.name")
    if isinstance(error, chatbots.TooManyChatbotsError):
        return RefusedError(409, "too_many_chatbots", _sentence(error))
    return bad_request("invalid_change", _sentence(error))


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."
