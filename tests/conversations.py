"""Made-up conversations, as many as a test wants, the same ones every time."""

import gzip
import itertools
import json
import os
import random
from pathlib import Path
from typing import Any

_WORDS = tuple("I would like to change my plan please help with the invoice".split())  # noqa: SIM905


def conversations(count: int, seed: int = 7) -> list[dict[str, Any]]:
    """Return conversations in the shape of a capture, of 1 to 30 messages each."""
    dice = random.Random(seed)  # noqa: S311
    return [
        {
            "conversationId": f"conversation-{number}",
            "messages": [
                {
                    "id": f"t{at}",
                    "role": "assistant" if at % 2 else "user",
                    "content": " ".join(dice.choices(_WORDS, k=dice.randint(1, 40))),
                }
                for at in range(dice.randint(1, 30))
            ],
            "user": {"id": f"user-{number % 10}", "plan": dice.choice(["free", "pro"])},
        }
        for number in range(count)
    ]


def write_lines(path: Path, found: list[dict[str, Any]]) -> int:
    """Write conversations as JSON Lines; return how many messages they have."""
    path.write_text("".join(f"{json.dumps(conversation)}\n" for conversation in found))
    return sum(len(conversation["messages"]) for conversation in found)


def real_or_made_up(count: int) -> list[dict[str, Any]]:
    """Return conversations of the file that OPENBAT_TEST_CONVERSATIONS names, else made-up ones.

    The file is JSON Lines, gzip or plain, a conversation a line in the shape of a capture.
    """
    name = os.environ.get("OPENBAT_TEST_CONVERSATIONS")
    if not name:
        return conversations(count)
    path = Path(name)
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
        return [json.loads(line) for line in itertools.islice(lines, count)]
