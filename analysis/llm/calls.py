"""Which subjects share a request. Pure."""

from collections import defaultdict
from collections.abc import Sequence

from analysis.llm.prompt import sent_texts
from analysis.llm.suspicion import any_looks_like_an_order
from analysis.protocol import Subject

MAX_CALL_CHARACTERS = 60_000
"""Of all the texts in one request; one subject alone may have more."""

Call = list[int]
"""The places of its subjects."""


def calls_for(subjects: Sequence[Subject], subjects_per_call: int, *, isolate: bool) -> list[Call]:
    """Split a batch into requests.

    Those who share one have the same chatbot, vocabulary and kinds, and none has a text that looks
    like an order to the model; with `isolate`, none shares any.
    """
    alone: list[Call] = []
    shared: defaultdict[object, list[Call]] = defaultdict(list)
    room: dict[object, int] = {}
    for place, subject in enumerate(subjects):
        texts = list(sent_texts(subject))
        if isolate or any_looks_like_an_order(texts):
            alone.append([place])
            continue
        key = subject.chatbot_id, subject.vocabulary, subject.kinds
        size = sum(map(len, texts))
        calls = shared[key]
        if not calls or len(calls[-1]) == subjects_per_call or size > room[key]:
            calls.append([])
            room[key] = MAX_CALL_CHARACTERS
        calls[-1].append(place)
        room[key] -= size
    return [call for calls in (*shared.values(), alone) for call in calls]
