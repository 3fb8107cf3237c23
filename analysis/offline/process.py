"""The process that judges: `python -m analysis.offline.process`, started by the analyzer.

It reads frames of subjects from its standard input, and writes frames of answers. It ends with its
input, so with the worker, however that ends.
"""

import gc
import signal
import sys

from analysis.offline.frames import LENGTH_BYTES, answers_frame, length_of, read_subjects
from analysis.offline.judging import judge_all

GC_THRESHOLD = 50_000
"""What rules make holds no cycles."""


def main() -> None:
    # A terminal's Ctrl-C reaches it too: the worker ends it when it has no more to ask.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    asked, answered = sys.stdin.buffer, sys.stdout.buffer
    while len(head := asked.read(LENGTH_BYTES)) == LENGTH_BYTES:
        body = asked.read(length_of(head))
        answered.write(answers_frame(judge_all(read_subjects(body))))
        answered.flush()


if __name__ == "__main__":
    main()
