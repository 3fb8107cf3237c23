"""Brokers die, one with its disk; what was answered with 200 is there, once."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from openbat.kafka import TopicsError, migrate_topics
from schemas import topics
from tests.brokers import brokers
from tests.outages.cluster import BROKERS, Cluster, admin, running, settings_of
from tests.outages.rig import at_most, judge, say
from tests.report import Figure, Report

pytestmark = pytest.mark.timeout(900)

BACK_SECONDS = 30.0
"""A dead broker is noticed after 2 s, and its partitions have new leaders then; the rest is what
clients take to find them."""
IN_SYNC_SECONDS = 60.0
AWAY_SECONDS = 2.0


@pytest.fixture(scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory, full: bool) -> AsyncIterator[Cluster]:
    async with running(tmp_path_factory.mktemp("cluster"), 5.0 if full else 2.0) as made:
        yield made


async def test_every_topic_is_on_three_brokers_and_no_write_on_one(cluster: Cluster) -> None:
    """As `openbat migrate` makes them, the table's changelog included."""
    async with admin(cluster.connection) as client:
        found = {topic["topic"]: topic["partitions"] for topic in await client.describe_topics()}
    for topic in topics.TOPICS:
        assert {len(partition["replicas"]) for partition in found[topic.name]} == {BROKERS}
        settings = await settings_of(cluster.connection, topic.name)
        assert settings["min.insync.replicas"] == "2"
        assert settings["unclean.leader.election.enable"] == "false"
    assert topics.CONVERSATIONS_CHANGELOG in found


async def test_a_broker_may_die_and_lose_its_disk(
    cluster: Cluster, full: bool, report: Report
) -> None:
    deaths = [(number, number == 1) for number in range(BROKERS)] * 2 if full else [(0, True)]
    longest = 0.0
    async with cluster.load("death", 32 if full else 8) as load:
        for number, loses_disk in deaths:
            broker = cluster.brokers[number]
            await load.exact_everywhere(time.monotonic(), BACK_SECONDS)
            say(f"broker {broker.number} dies{', and loses its disk' if loses_disk else ''}")
            broker.process.kill()
            died = time.monotonic()
            if loses_disk:
                cluster.wipe(broker)
            await load.exact_everywhere(died + 0.5, BACK_SECONDS)
            longest = max(longest, time.monotonic() - died)
            say(f"all partitions answer exactly after {time.monotonic() - died:.1f} s")
            await cluster.start(broker)
            await cluster.in_sync(IN_SYNC_SECONDS)
            say(f"in sync again after {time.monotonic() - died:.1f} s")
    await load.count(BACK_SECONDS)
    refused = sum(answer.status != 200 for answer in load.answers)
    judge(
        report,
        [
            Figure("one of three brokers dies: deaths", len(deaths)),
            Figure("one of three brokers dies: messages answered with 200", load.messages),
            Figure("of them missing or twice in ClickHouse", 0, "", "= 0", True),
            Figure("requests that were answered with 503, and sent again", refused),
            at_most("exact answers of every partition again after", longest, BACK_SECONDS, "s"),
        ],
    )


async def test_with_two_of_three_gone_nothing_is_promised(
    cluster: Cluster, full: bool, report: Report
) -> None:
    gone = cluster.brokers[1:]
    async with cluster.load("quorum", 32 if full else 8) as load:
        await load.exact_everywhere(time.monotonic(), BACK_SECONDS)
        say("two of three brokers die")
        for broker in gone:
            broker.process.kill()
        died = time.monotonic()
        # What was on its way when they died may have been acknowledged by both in time.
        await load.until(
            lambda: any(answer.status == 503 for answer in load.between(died)), 30, "a 503"
        )
        await asyncio.sleep(15 * AWAY_SECONDS if full else AWAY_SECONDS)
        away = load.between(died + 0.5)
        for broker in gone:
            await asyncio.to_thread(broker.start)
        back = time.monotonic()
        await load.exact_everywhere(back, BACK_SECONDS)
        seconds = time.monotonic() - back
        say(f"all partitions answer exactly {seconds:.1f} s after both were started")
        await cluster.in_sync(IN_SYNC_SECONDS)
    await load.count(BACK_SECONDS)
    others = {answer.status for answer in away} - {503}
    judge(
        report,
        [
            Figure("two of three brokers gone: requests answered with 503", len(away)),
            Figure(
                "two of three brokers gone: answered otherwise", len(others), "", "= 0", not others
            ),
            Figure("two of three brokers gone: messages answered with 200", load.messages),
            Figure("of them missing or twice in ClickHouse", 0, "", "= 0", True),
            at_most("exact answers of every partition after both came back", seconds, 30, "s"),
        ],
    )


async def test_three_copies_on_one_broker_are_refused(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    starting = brokers(tmp_path_factory.mktemp("single"))
    (broker,) = await asyncio.to_thread(starting.__enter__)
    try:
        with pytest.raises(TopicsError, match="OPENBAT_REPLICATION_FACTOR") as error:
            await migrate_topics(broker.connection, 2, replication_factor=3)
        assert "\n" not in str(error.value)
    finally:
        await asyncio.to_thread(starting.__exit__, None, None, None)
