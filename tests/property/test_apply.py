"""The worker's logic against a model of the contract."""

import dataclasses
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from schemas.positions import CAPTURE_BITS, MESSAGE_BITS, OFFSET_BITS
from streams.apply import batches
from tests.property import strategies
from tests.property.model import Model, ModelConversation, ModelMessage
from tests.property.strategies import Record, conversation_id
from tests.property.worker import MessagesOf, Outcome, Table, process_all, state_of


def modelled(records: list[Record]) -> tuple[Model, list[list[int | None]]]:
    """Return the model after the records, and what it stored of each capture."""
    model = Model()
    stored = [
        [
            None
            if captured is None
            else model.capture(captured, (record.generation, record.offset, index))
            for index, captured in enumerate(record.captures)
        ]
        for record in records
    ]
    return model, stored


def conversations_of(model: Model) -> dict[bytes, ModelConversation]:
    return {
        conversation_id(*name): conversation for name, conversation in model.conversations.items()
    }


def rows(messages: list[MessagesOf]) -> dict[bytes, list[ModelMessage]]:
    """Return the messages of several records by conversation, as the model has them."""
    found: dict[bytes, list[ModelMessage]] = {}
    for of_record in messages:
        for conversation, new in of_record.items():
            found.setdefault(conversation, []).extend(
                ModelMessage(
                    (
                        message.position >> OFFSET_BITS + CAPTURE_BITS + MESSAGE_BITS,
                        message.position >> CAPTURE_BITS + MESSAGE_BITS & (1 << OFFSET_BITS) - 1,
                        message.position >> MESSAGE_BITS & (1 << CAPTURE_BITS) - 1,
                        message.position & (1 << MESSAGE_BITS) - 1,
                    ),
                    message.id,
                    message.role,
                    message.content,
                    message.sent_at,
                    message.received_at,
                )
                for message in new
            )
    return found


@given(strategies.records())
def test_every_answer_counts_exactly_the_messages_that_are_new(records: list[Record]) -> None:
    assert [outcome.stored for outcome in process_all({}, records)] == modelled(records)[1]


@given(strategies.records())
def test_each_new_message_becomes_one_row_at_its_place_in_the_log(records: list[Record]) -> None:
    model, _ = modelled(records)
    expected = {key: value.messages for key, value in conversations_of(model).items()}
    assert rows([outcome.messages for outcome in process_all({}, records)]) == expected


@given(strategies.records())
def test_a_conversation_lies_in_order_of_positions(records: list[Record]) -> None:
    outcomes = process_all({}, records)
    for conversation in {key for outcome in outcomes for key in outcome.messages}:
        positions = [
            message.position
            for outcome in outcomes
            for message in outcome.messages.get(conversation, [])
        ]
        assert positions == sorted(set(positions))


@given(strategies.records())
def test_a_state_sums_up_its_conversation(records: list[Record]) -> None:
    table: Table = {}
    outcomes = process_all(table, records)
    for key, conversation in conversations_of(modelled(records)[0]).items():
        state = state_of(table, key)
        sent = [message.sent_at for message in conversation.messages]
        assert state.message_count == len(conversation.ids)
        assert (state.first_message_at, state.last_message_at) == (min(sent), max(sent))
        assert state.fields == conversation.fields
        assert conversation_id(state.chatbot_id, state.external_id) == key
        assert state.created_at == conversation.messages[0].received_at
        last = [outcome.states[key] for outcome in outcomes if key in outcome.states][-1]
        assert last == state


@given(strategies.records())
def test_revisions_of_a_conversation_only_ever_grow(records: list[Record]) -> None:
    revisions: dict[bytes, list[int]] = {}
    for outcome in process_all({}, records):
        for key, state in outcome.states.items():
            revisions.setdefault(key, []).append(state.revision)
            assert state.revision >= state.updated_at
    for of_one in revisions.values():
        assert all(before < after for before, after in pairwise(of_one))


@given(strategies.records())
def test_what_is_analysed_is_what_is_new_in_captures_with_analysis_on(
    records: list[Record],
) -> None:
    on = {
        (record.generation, record.offset, index)
        for record in records
        for index, captured in enumerate(record.captures)
        if captured and captured.analysis
    }
    outcomes = process_all({}, records)
    expected = {
        key: [dataclasses.replace(message) for message in of_one if message.place[:3] in on]
        for key, of_one in rows([outcome.messages for outcome in outcomes]).items()
    }
    analysed = rows([outcome.analysed for outcome in outcomes])
    assert analysed == {key: of_one for key, of_one in expected.items() if of_one}


@given(strategies.records(max_size=4))
def test_the_same_record_over_the_same_table_gives_the_same_bytes(records: list[Record]) -> None:
    first, second = {}, {}  # type: tuple[Table, Table]
    outcomes: list[Outcome] = process_all(first, records)
    assert process_all(second, records) == outcomes
    assert first == second


@given(st.lists(st.integers(0, 30)), st.integers(1, 25))
def test_output_is_cut_into_records_without_loss_in_order_and_within_the_limit(
    sizes: list[int], limit: int
) -> None:
    items = list(enumerate(sizes))
    records = batches(items, lambda item: item[1], limit)
    assert [item for record in records for item in record] == items
    for record in records:
        assert record
        assert len(record) == 1 or sum(size for _, size in record) <= limit
    for record, following in pairwise(records):
        assert sum(size for _, size in record) + following[0][1] > limit
