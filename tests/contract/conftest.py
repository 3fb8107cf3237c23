"""A chatbot for each module."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.contract.client import Bot, unique
from tests.stack import Stack


@pytest.fixture(scope="module")
def bot(stack: Stack, request: pytest.FixtureRequest) -> Iterator[Bot]:
    made = Bot(stack, unique(request.module.__name__.rpartition(".")[2]))
    with contextlib.closing(made):
        yield made
