"""The network between two parts is slow, silent or broken."""

import asyncio
import time

import pytest

from tests.load import quantile
from tests.outages.rig import TO_CLICKHOUSE, Rig, at_most, judge, say
from tests.report import Figure, Report

RECOVERY_SECONDS = 60.0
"""A request in the silent connection's time-out, 30 s at most, and what it takes to start anew."""
DELAY_SECONDS = 0.1
BYTES_PER_SECOND = 1024 * 1024.0
TO_KAFKA = ("gateway", "conversations", "clickhouse")


def name_of(links: tuple[str, ...]) -> str:
    names = {TO_CLICKHOUSE: "ClickHouse worker - ClickHouse", "gateway": "gateway - Kafka"}
    names |= {"conversations": "conversations worker - Kafka"}
    names |= {"clickhouse": "ClickHouse worker - Kafka"}
    return ", ".join(names[link] for link in links)


@pytest.mark.timeout(300)
async def test_over_a_slow_network_all_is_exact(rig: Rig, full: bool, report: Report) -> None:
    links = (*TO_KAFKA, TO_CLICKHOUSE)
    async with rig.load("slow", clients=32, pause_seconds=0.3) as load:
        for link in links:
            rig.links[link].slow(DELAY_SECONDS, BYTES_PER_SECOND)
        say("all networks are slow")
        slowed = time.monotonic()
        await load.exact_everywhere(slowed + 1, 30)
        await asyncio.sleep(60.0 if full else 3.0)
        for link in links:
            rig.links[link].heal()
        healed = time.monotonic()
        await load.exact_everywhere(healed, 30)
    await load.count(60)
    during = load.between(slowed + 2, healed)
    exact = sum(answer.is_exact for answer in during) / len(during)
    title = "All networks slow, 100 ms each way and 1 MiB/s"
    judge(
        report,
        [
            Figure(f"{title}: p50", quantile(during, 0.5), "ms"),
            Figure(f"{title}: p99", quantile(during, 0.99), "ms"),
            Figure(f"{title}: share of exact answers", exact, "", ">= 0.9", exact >= 0.9),
            Figure(f"{title}: messages answered with 200, each stored once", load.messages),
        ],
    )


async def silent(rig: Rig, report: Report, links: tuple[str, ...], seconds: float) -> None:
    """Let links be silent, heal them, and judge what came of it."""
    label = f"silent-{'+'.join(links)}-{seconds:g}s"
    async with rig.load(label, clients=32) as load:
        await load.exact_everywhere(time.monotonic(), 30)
        for link in links:
            rig.links[link].silence()
        say(f"{name_of(links)}: silent for {seconds:g} s")
        gone = time.monotonic()
        await asyncio.sleep(seconds)
        for link in links:
            rig.links[link].heal()
        healed = time.monotonic()
        say("healed; the connections that were open stay dead")
        await load.exact_everywhere(healed, RECOVERY_SECONDS * 2)
        recovered = time.monotonic() - healed
    ended = time.monotonic()
    await load.count(RECOVERY_SECONDS * 2)
    stored = max(0.0, time.monotonic() - ended)
    statuses = {answer.status for answer in load.answers}
    refused = [answer for answer in load.between(gone) if answer.status == 503]
    may_refuse = "gateway" in links
    title = f"{name_of(links)}, silent {seconds:g} s"
    figures = [
        Figure(
            f"{title}: statuses",
            str(sorted(statuses)),
            "",
            "200, 503" if may_refuse else "200",
            statuses <= ({200, 503} if may_refuse else {200}),
        ),
        at_most(f"{title}: exact everywhere after", recovered, RECOVERY_SECONDS, "s"),
        at_most(f"{title}: all rows there after", stored, RECOVERY_SECONDS, "s"),
        Figure(f"{title}: messages answered with 200, each stored once", load.messages),
    ]
    if may_refuse:
        slowest = quantile(refused, 1.0)
        figures.append(
            at_most(f"{title}: slowest 503", slowest, 1000 * (rig.produce_seconds + 0.5), "ms")
        )
    judge(report, figures)


@pytest.mark.timeout(1200)
async def test_dead_connections_are_noticed(rig: Rig, full: bool, report: Report) -> None:
    await silent(rig, report, TO_KAFKA, 3.0)
    if full:
        for link in rig.links:
            for seconds in (4.0, 40.0):
                await silent(rig, report, (link,), seconds)


@pytest.mark.timeout(300)
async def test_broken_connections_are_made_anew(rig: Rig, full: bool, report: Report) -> None:
    async with rig.load("broken", clients=32) as load:
        for _ in range(10 if full else 1):
            for link in rig.links.values():
                await load.exact_everywhere(time.monotonic(), 60)
                link.reset()
        broken = time.monotonic()
        await load.exact_everywhere(broken, 60)
        recovered = time.monotonic() - broken
    await load.count(60)
    statuses = {answer.status for answer in load.answers}
    title = "Every connection broken, one link after the other"
    judge(
        report,
        [
            Figure(
                f"{title}: statuses", str(sorted(statuses)), "", "200, 503", statuses <= {200, 503}
            ),
            at_most(f"{title}: exact everywhere after", recovered, 30, "s"),
            Figure(f"{title}: messages answered with 200, each stored once", load.messages),
        ],
    )
