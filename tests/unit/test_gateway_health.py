"""What a gateway says of its health to another thread."""

import asyncio
import time

import pytest

from gateway.health import KAFKA_AWAY, STARTING
from openbat import gateway_health
from openbat.gateway_health import GatewayHealth
from openbat.health import ALIVE, READY, STUCK, Check


async def asked(check: Check) -> list[str]:
    return list(await asyncio.to_thread(check))


async def test_it_answers_for_the_gateway() -> None:
    reasons: list[str] = []

    async def unready() -> list[str]:
        return reasons

    health = GatewayHealth(unready)
    paths = health.paths()
    assert (list(paths[ALIVE]()), list(paths[READY]())) == ([], [STARTING])
    health.loop = asyncio.get_running_loop()
    assert (await asked(paths[ALIVE]), await asked(paths[READY])) == ([], [])
    reasons.append(KAFKA_AWAY)
    assert (await asked(paths[ALIVE]), await asked(paths[READY])) == ([], [KAFKA_AWAY])


async def test_a_loop_that_does_not_turn_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openbat.health.LOOK_SECONDS", 0.05)
    monkeypatch.setattr(gateway_health, "LOOK_SECONDS", 0.05)

    async def unready() -> list[str]:
        return []

    health = GatewayHealth(unready)
    health.loop = asyncio.get_running_loop()
    asking = asyncio.gather(asked(health.stuck), asked(health.unready))
    await asyncio.sleep(0)
    time.sleep(0.5)  # noqa: ASYNC251 - it is what the test is about
    assert list(await asking) == [[STUCK], [STUCK]]
    assert (await asked(health.stuck), await asked(health.unready)) == ([], [])
