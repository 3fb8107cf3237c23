"""How often the offline analyzers are right: `python -m bench.accuracy`.

Takes labelled data where it is: human-rated sentences from the source distribution of the package
vaderSentiment, through pip, and conversations of the Schema-Guided Dialogue dataset from the file
that OPENBAT_TEST_CONVERSATIONS names. Prints the table, and puts it into docs/analysis-offline.md.
"""

import os
import random
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import correlation
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from analysis.offline.behaviour import behaviour_of
from analysis.offline.intent import intent_of
from analysis.offline.resolution import resolution_of
from analysis.offline.sentiment import label_of, score_of
from analysis.offline.topics import topics_of
from analysis.offline.words import is_content, words
from analysis.protocol import Turn
from schemas.analysis import DEFAULT_INTENTS, MAX_TOPICS
from tests.conversations import real_or_made_up

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "analysis-offline.md"
LABELS = ROOT / "tests" / "data" / "offline-labels.json"
BEGIN, END = "<!-- accuracy: made by bench/accuracy.py -->", "<!-- end of accuracy -->"

RATED_PACKAGE = "vaderSentiment==3.3.2"
RATED = {
    "tweets": "tweets",
    "product reviews": "amazonReviewSnippets",
    "film reviews": "movieReviewSnippets",
    "newspaper editorials": "nytEditorialSnippets",
}
RATED_THRESHOLD = 0.5
"""Of the mean of 20 people's ratings from -4 to 4: nearer to 0 is neutral."""

DOMAINS = {
    "Restaurants": "restaurant food eat table cuisine dinner lunch",
    "Events": "event concert game match music sport show",
    "Weather": "weather temperature forecast rain humidity wind",
    "Travel": "attraction museum park tourist sightseeing travel",
    "Movies": "movie film theater theatre cinema",
    "Media": "movie film watch subtitle documentary",
    "Homes": "apartment home house property rent bedroom",
    "Flights": "flight airline airport ticket plane",
    "RideSharing": "cab taxi ride",
    "Hotels": "hotel room accommodation house stay",
    "Buses": "bus ticket",
    "Banks": "account balance money transfer checking saving",
    "RentalCars": "car rental suv sedan hatchback",
    "Music": "song music album artist",
    "Services": "doctor dentist therapist salon stylist psychologist appointment hair",
    "Calendar": "calendar event schedule meeting",
    "Alarm": "alarm",
}
"""The words that name what a service of the dataset is for."""

SEEN = 1_500
"""Conversations, from the first, that the rules were tried on while they were written."""


class Row(msgspec.Struct):
    """A line of the table; `size` is how many messages or conversations were judged."""

    kind: str
    data: str
    size: int
    measure: str
    value: str
    baseline: str


def macro_f1(truth: Sequence[str], said: Sequence[str]) -> float:
    """Return the mean of the F1 of the labels that occur in the truth."""
    pairs, true, told = Counter(zip(truth, said, strict=True)), Counter(truth), Counter(said)
    return sum(2 * pairs[name, name] / (true[name] + told[name]) for name in true) / len(true)


def share(truth: Sequence[str], said: Sequence[str]) -> float:
    """Return the share of labels that agree."""
    return sum(one == other for one, other in zip(truth, said, strict=True)) / len(truth)


def classes(kind: str, data: str, truth: Sequence[str], said: Sequence[str]) -> list[Row]:
    """Return accuracy and F1 beside those of always saying the most frequent label."""
    most = [Counter(truth).most_common(1)[0][0]] * len(truth)
    return [
        Row(kind, data, len(truth), name, f"{of(truth, said):.2f}", f"{of(truth, most):.2f}")
        for name, of in (("accuracy", share), ("macro F1", macro_f1))
    ]


def rated() -> Iterator[tuple[str, list[tuple[float, str]]]]:
    """Return sets of sentences with the mean of their ratings."""
    with TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"]
        subprocess.run([*pip, "--dest", folder, RATED_PACKAGE], check=True)
        with tarfile.open(next(Path(folder).glob("*.tar.gz"))) as outer:
            name = next(
                name for name in outer.getnames() if name.endswith("hutto_ICWSM_2014.tar.gz")
            )
            with tarfile.open(fileobj=outer.extractfile(name)) as inner:
                files = {Path(member.name).name: member for member in inner if member.isfile()}
                for data, stem in RATED.items():
                    found = inner.extractfile(files[f"{stem}_GroundTruth.txt"])
                    assert found is not None  # noqa: S101  (a file, as was checked)
                    lines = found.read().decode("latin-1").splitlines()
                    rows = (line.split("\t", 2) for line in lines if line.count("\t") > 1)
                    yield data, [(float(rating), text) for _, rating, text in rows]


def measure_sentiment() -> Iterator[Row]:
    for data, sentences in rated():
        ratings = [rating for rating, _ in sentences]
        scores = [score_of(text) for _, text in sentences]
        r = correlation(ratings, scores)
        yield Row("sentiment", data, len(scores), "Pearson's r of the score", f"{r:.2f}", "0")
        truth = [
            "neutral" if abs(rating) < RATED_THRESHOLD else "positive" if rating > 0 else "negative"
            for rating in ratings
        ]
        yield from classes("sentiment", data, truth, [label_of(score) for score in scores])


def turns_of(conversation: dict[str, Any]) -> list[Turn]:
    return [Turn(turn["id"], turn["role"], turn["content"], 0) for turn in conversation["messages"]]


def measure_labelled(conversations: Sequence[dict[str, Any]]) -> Iterator[Row]:
    """Compare with the labels of tests/data, whose texts are looked up by their ids."""
    labels = msgspec.json.decode(LABELS.read_bytes())
    where = {each["conversationId"]: turns_of(each) for each in conversations}

    def found(key: str) -> tuple[str, list[Turn]]:
        conversation, message = key.split()
        turns = where[conversation]
        at = next(at for at, turn in enumerate(turns) if turn.id == message)
        return turns[at].content, turns[max(0, at - 12) : at]

    users = [(found(key)[0], *both) for key, both in labels["user"].items()]
    said = [label_of(score_of(text)) for text, _, _ in users]
    yield from classes("sentiment", "dialogues, labelled", [mood for _, mood, _ in users], said)
    said_intents = [intent_of(text, DEFAULT_INTENTS) for text, _, _ in users]
    truth = [intent for _, _, intent in users]
    yield from classes("intent", "dialogues, labelled", truth, said_intents)
    did = [behaviour_of(*found(key))[0] for key in labels["assistant"]]
    yield from classes("behaviour", "dialogues, labelled", list(labels["assistant"].values()), did)


def measure_topics(conversations: Sequence[dict[str, Any]]) -> Iterator[Row]:
    """Look for the service's own words in the most frequent topics of a conversation."""
    hits = plain_hits = size = 0
    for conversation in conversations:
        services = {name.split("_")[0] for name in conversation["custom"]["services"].split(",")}
        if len(services) > 1:
            continue
        size += 1
        domain = set(DOMAINS[services.pop()].split())
        texts = [turn.content for turn in turns_of(conversation) if turn.role == "user"]
        topics = Counter(topic for text in texts for topic in topics_of(text))
        plain = Counter(word for text in texts for word in words(text) if is_content(word))
        hits += any(domain & set(topic.split()) for topic, _ in topics.most_common(MAX_TOPICS))
        plain_hits += any(word in domain for word, _ in plain.most_common(MAX_TOPICS))
    measure = "a conversation's three most frequent topics name its domain"
    value, plain_value = f"{hits / size:.2f}", f"{plain_hits / size:.2f} (most frequent words)"
    yield Row("topics", "dialogues of one service", size, measure, value, plain_value)


def measure_resolution(conversations: Sequence[dict[str, Any]]) -> Iterator[Row]:
    """Tell whole conversations, which all end well, from what is left of them after a cut.

    The cut is after any message of the first half; a few of those had what they wanted by then.
    """
    dice = random.Random(11)  # noqa: S311
    truth, said = [], []
    for conversation in conversations:
        turns = turns_of(conversation)
        cut = turns[: dice.randint(1, len(turns) // 2)]
        for kept, label in ((turns, "fully"), (cut, "not fully")):
            truth.append(label)
            said.append("fully" if resolution_of(kept[-12:])[0] == "fully" else "not fully")
    yield from classes("resolution", "dialogues, whole and cut", truth, said)


def table(rows: Sequence[Row]) -> str:
    """Return rows as Markdown."""
    lines = ["| kind | data | n | measure | value | baseline |", "|---|---|---|---|---|---|"]
    for row in rows:
        line = (row.kind, row.data, f"{row.size:,}", row.measure, row.value, row.baseline)
        lines.append(f"| {' | '.join(line)} |")
    return "\n".join(lines)


def main() -> None:
    if not os.environ.get("OPENBAT_TEST_CONVERSATIONS"):
        raise SystemExit("OPENBAT_TEST_CONVERSATIONS must name a file of labelled conversations.")
    conversations = real_or_made_up(sys.maxsize)
    made = table(
        [
            *measure_sentiment(),
            *measure_labelled(conversations),
            *measure_topics(conversations[SEEN:]),
            *measure_resolution(conversations[SEEN:]),
        ]
    )
    sys.stdout.write(f"{made}\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{made}\n{END}{after}")


if __name__ == "__main__":
    main()
