"""A minute of the matrix, and what shows that it can fail."""

import itertools
from pathlib import Path

import pytest

from tests.crash import campaign, failpoints, zombie
from tests.crash.__main__ import sequence
from tests.crash.faults import faults

SEED = 1
SHORT = (
    ("kafka", "at random, one"),
    ("clickhouse", "clickhouse.message_rows.after"),
    ("gateway", "gateway.captures.acknowledged"),
    ("conversations", "conversations.messages.before"),
    ("conversations", "conversations.recovery.before"),
)
"""One of each role, at the moments that are hardest to get right."""


@pytest.mark.timeout(300)
def test_kills_under_load_leave_what_the_model_says(tmp_path: Path) -> None:
    kinds = {(fault.role, fault.moment): fault for fault in faults()}
    outcome = campaign.run(tmp_path / "campaign", [kinds[each] for each in SHORT], SEED)
    assert outcome.deviations == []
    assert len(outcome.rounds) == len(SHORT)
    assert outcome.answers["exact"] > 100


@pytest.mark.timeout(300)
def test_a_zombie_does_no_harm(tmp_path: Path) -> None:
    seen = zombie.run(tmp_path / "zombie", SEED)
    assert seen.deviations == []
    assert seen.late_entries > 0
    assert seen.entries > 100


@pytest.mark.timeout(300)
def test_without_a_safeguard_the_oracle_finds_the_loss(tmp_path: Path) -> None:
    """Workers that ack before their outputs are sent, killed right after a commit."""
    kinds = {fault.moment: fault for fault in faults()}
    outcome = campaign.run(
        tmp_path / "campaign",
        [kinds["conversations.commit.after"]],
        SEED,
        sabotage=failpoints.ACK_FIRST,
    )
    assert any("rows" in deviation for deviation in outcome.deviations), outcome.deviations


def test_the_matrix_has_every_kind_of_fault() -> None:
    found = [(fault.role, fault.moment) for fault in sequence(len(faults()), SEED)]
    assert len(set(found)) == len(found)
    assert {moment for _, moment in found} >= set(failpoints.MOMENTS)
    for role, moment in itertools.product(
        ("gateway", "conversations", "clickhouse"), ("one", "all")
    ):
        assert (role, f"at random, {moment}") in found
