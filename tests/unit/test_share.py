"""How many messages of a chatbot are analysed at once follows how long they take."""

from itertools import pairwise

import pytest

from streams.share import HELD_UP_SECONDS, MESSAGES_AT_ONCE, MOST_AT_ONCE, Share


def share_after(*seconds_each: float) -> int:
    share = Share()
    for each in seconds_each:
        share.took(100, 100 * each)
    return share.messages


def test_it_is_small_until_it_is_known_how_quick_the_analyzers_are() -> None:
    assert share_after() == MESSAGES_AT_ONCE


@pytest.mark.parametrize(
    ("seconds_each", "messages"),
    [(0.0, MOST_AT_ONCE), (0.002, 2_500), (0.1, 50), (0.5, MESSAGES_AT_ONCE)],
)
def test_others_wait_no_longer_than_they_should(seconds_each: float, messages: int) -> None:
    assert share_after(seconds_each) == messages
    assert messages == MESSAGES_AT_ONCE or messages * seconds_each <= HELD_UP_SECONDS


def test_it_follows_what_changes_and_shrugs_off_a_single_gulp() -> None:
    assert 2_000 < share_after(0.002, 0.003) < share_after(0.002)
    shrinking = [share_after(0.002, *[0.5] * gulps) for gulps in range(12)]
    assert all(later <= before for before, later in pairwise(shrinking))
    assert shrinking[-1] == MESSAGES_AT_ONCE
