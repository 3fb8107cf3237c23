"""Whatever stands in a topic is a record that the pipeline can process, or undecodable."""

from contextlib import suppress
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import UndecodableError
from tests.fuzz import corpus
from tests.fuzz.cases import Cases
from tests.fuzz.conftest import Effort
from tests.fuzz.mutations import damaged, foreign, mutated
from tests.fuzz.targets import TARGETS
from tests.report import Report

SHORT, LONG = 40, 2_000
VARIANTS = 4
"""Of each input that is drawn: drawing it takes longer than reading it."""

KEPT = [
    pytest.param(name, entry.data, id=f"{name}: {entry.why}")
    for name in TARGETS
    for entry in corpus.entries(name)
]


@pytest.mark.parametrize(("name", "data"), KEPT)
def test_what_was_found_before(cases: Cases, name: str, data: bytes) -> None:
    with cases.case(name, data), suppress(UndecodableError):
        TARGETS[name].read(data)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TARGETS)
def test_whatever_stands_in_a_topic(
    cases: Cases, effort: Effort, report: Report, name: str
) -> None:
    target = TARGETS[name]
    valid = target.values.map(lambda value: target.version + value)
    seeds = valid | st.sampled_from([*corpus.seeds(name), b"\1"])
    inputs = mutated(seeds) | valid | st.binary(max_size=40)
    # Of the changelogs an entry is not one value, a dead letter is any.
    if name not in {"changelog", "contexts", "dead-letters"}:
        inputs |= foreign(target.values, target.version)
    decoded = 0

    @effort(SHORT, LONG)
    @given(inputs, st.randoms(use_true_random=True))
    def read(drawn: bytes, dice: Random) -> None:
        nonlocal decoded
        for data in (drawn, *(damaged(drawn, drawn, dice) for _ in range(VARIANTS))):
            with cases.case(name, data), suppress(UndecodableError):
                target.read(data)
                decoded += 1

    read()
    report.add(f"topics: inputs of {name}", cases.count(name), bound="processed or undecodable")
    report.add(f"topics: of which processed, {name}", decoded, bound="some", holds=decoded > 0)
    assert decoded > 0
