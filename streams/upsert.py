"""How a capture changes its conversation's state."""

from msgspec.structs import replace

from schemas import sizes
from schemas.records import Captured, ConversationState, Fields, NewMessage, encode


def upsert(
    state: ConversationState | None,
    captured: Captured,
    position: int,
    new: list[NewMessage],
    forgotten_before: int = 0,
) -> tuple[ConversationState, list[str]]:
    """Return the state after the capture, and the names of fields that did not fit into it.

    A field that is not sent again keeps its value. A capture at or before the position that the
    state already applied, or one that brings nothing new, leaves the state as it is: the very
    same object is returned.
    """
    if state is not None and state.position >= position:
        return state, []
    fields, left_out = merge(state.fields if state else {}, captured.fields)
    if state is None:
        sent_at = new[0].sent_at if new else captured.received_at
        first, last = _span(new, sent_at, sent_at)
        return ConversationState(
            chatbot_id=captured.chatbot_id,
            conversation_id=captured.conversation_id,
            external_id=captured.external_id,
            revision=captured.received_at,
            position=position,
            message_count=len(new),
            first_message_at=first,
            last_message_at=last,
            created_at=captured.received_at,
            updated_at=captured.received_at,
            fields=fields,
            remember_days=captured.remember_days,
        ), left_out
    # As bytes: 1 and true, and 1 and 1.0, are equal, and are not the same.
    if not new and (fields is state.fields or encode(fields) == encode(state.fields)):
        return state, left_out
    first, last = _span(new, state.first_message_at, state.last_message_at)
    return replace(
        state,
        revision=max(state.revision + 1, captured.received_at),
        position=position,
        message_count=state.message_count + len(new),
        first_message_at=first,
        last_message_at=last,
        updated_at=max(state.updated_at, captured.received_at),
        fields=fields,
        remember_days=captured.remember_days,
        forgotten_before=forgotten_before,
    ), left_out


def _span(new: list[NewMessage], first: int, last: int) -> tuple[int, int]:
    """Return the span of time from first to last, and all new messages."""
    for message in new:
        if message.sent_at < first:
            first = message.sent_at
        elif message.sent_at > last:
            last = message.sent_at
    return first, last


def merge(stored: Fields, sent: Fields) -> tuple[Fields, list[str]]:
    """Return the stored fields with the sent ones over them, and the names of those left out.

    Together they take at most 64 KiB, encoded; a field that would exceed that is left out, and
    keeps the value that was stored.
    """
    if not sent:
        return stored, []
    merged = {**stored}
    for group, values in sent.items():
        merged[group] = {**stored.get(group, {}), **values}
    if len(encode(merged)) <= sizes.FIELDS:
        return merged, []
    return _merge_what_fits(stored, sent)


def _merge_what_fits(stored: Fields, sent: Fields) -> tuple[Fields, list[str]]:
    merged = {group: dict(stored.get(group, {})) for group in {**stored, **sent}}
    # A map's header takes 5 bytes at most; counted so, each field is encoded only once.
    size = len(encode(merged)) + 5 * (1 + len(merged))
    left_out = []
    for group, values in sent.items():
        target = merged[group]
        for name, value in values.items():
            grown = size + len(encode(value))
            grown += -len(encode(target[name])) if name in target else len(encode(name))
            if grown > max(size, sizes.FIELDS):  # one that does not grow always fits
                left_out.append(f"{group}.{name}")
            else:
                target[name] = value
                size = grown
    return {group: values for group, values in merged.items() if values}, left_out
