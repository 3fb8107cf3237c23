"""When a conversation's message ids are forgotten: decided by records alone, never by a clock.

They are forgotten when a capture comes that many days after the conversation's last change. So a
replay forgets the same. What is forgotten is removed later (`sweep.py`), which changes no answer.
"""

from schemas.positions import MESSAGE_BITS
from schemas.records import Captured, ConversationState

DAY_MICROSECONDS = 86_400_000_000
REPLAYED_DAYS = 8
"""How old a capture may be that is read again: `captures` is kept for 7 days and a half at most.
What found ids known must find them known then, too."""
CLOCKS_DAYS = 1
"""How far apart the clocks of gateways may be before a sweep could change an answer."""


def forgotten_before(state: ConversationState | None, captured: Captured, position: int) -> int:
    """Return the position below which the conversation's ids are unknown to this capture.

    The days are those that the conversation's last change was stamped with, not the capture's:
    else a setting that is changed could bring ids back that a sweep has removed already.
    """
    if state is None:
        return 0
    if state.position < position and state.remember_days:
        idle = captured.received_at - state.updated_at
        if idle > state.remember_days * DAY_MICROSECONDS:
            return position
    # A capture from before the forgetting sees the table as it was, as far as that is there.
    return state.forgotten_before if state.forgotten_before <= position else 0


def due_day(state: ConversationState) -> int:
    """Return the day since the epoch from which on an idle conversation's forgotten ids may go."""
    days = state.remember_days + REPLAYED_DAYS + CLOCKS_DAYS + 1
    return state.updated_at // DAY_MICROSECONDS + days


def removable_before(state: ConversationState, day: int) -> int:
    """Return the position below which ids may be removed when records have reached this day."""
    if due_day(state) > day:
        return 0
    return state.position + (1 << MESSAGE_BITS) if state.remember_days else state.forgotten_before


def forgets(state: ConversationState) -> bool:
    """Tell whether the conversation has ids that are forgotten, or will be."""
    return bool(state.remember_days or state.forgotten_before)
