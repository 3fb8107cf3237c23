"""The offline analyzers in a bare loop; prints how many messages, and the processor seconds.

`python -m bench.bare_analysis FILE`: the file holds an array of `analysis` records.
"""

import sys
import time
from pathlib import Path

import msgspec

from analysis.offline.judging import judge
from analysis.protocol import Subject
from openbat.garbage import collect_rarely
from schemas.chatbots import ChatbotSettings
from schemas.dead_letters import Source
from schemas.records import analysis_codec, decode_new_messages
from streams import asking
from streams.context import Context, Quiet, take_in


def subjects(records: list[bytes]) -> list[Subject]:
    """Return what the worker would ask about the records' messages."""
    settings, source, quiet = ChatbotSettings(), Source("", 0, 0, 0), Quiet(1, 1)
    contexts: dict[bytes, Context] = {}
    found = []
    for record in records:
        for item in analysis_codec.decode(record):
            new = decode_new_messages(item.messages)
            taken = take_in(contexts.get(item.conversation_id), item, new, 0, 0, quiet)
            contexts[item.conversation_id] = taken.context
            for question in asking.of_messages(item, new, taken.before, settings, source):
                found.append(question.subject)  # noqa: PERF401 - two loops in one line read badly
    return found


def main(path: str) -> None:
    collect_rarely()
    asked = subjects(msgspec.msgpack.decode(Path(path).read_bytes()))
    for subject in asked[:500]:  # the first time they load what they need
        judge(subject)
    started = time.process_time()
    for subject in asked:
        judge(subject)
    sys.stdout.write(f"{len(asked)} {time.process_time() - started}\n")


if __name__ == "__main__":
    main(sys.argv[1])
