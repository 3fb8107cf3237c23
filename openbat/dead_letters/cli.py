"""The `openbat dead-letters` commands. Each imports what it needs when it runs."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from openbat.command import AsJson, YesOption, ask, connection, end_with, print_json, run
from openbat.dead_letters.listed import (
    DeadLettersError,
    Filters,
    Listed,
    counts,
    moment,
    named,
)
from schemas.dead_letters import REASONS, Reason

if TYPE_CHECKING:
    from openbat.connection import Connection

app = typer.Typer(
    no_args_is_help=True, help="What could not be processed: look at it, replay it, drop it."
)

ReasonOption = Annotated[
    Reason | None, typer.Option("--reason", help="Only letters of this reason.")
]
TopicOption = Annotated[str | None, typer.Option("--topic", help="Only from this source topic.")]
PartitionOption = Annotated[
    int | None, typer.Option("--partition", help="Only from this source partition.")
]
SinceOption = Annotated[
    str | None,
    typer.Option("--since", help="Only letters from then on: an age such as 2h, or ISO 8601."),
]
UntilOption = Annotated[
    str | None, typer.Option("--until", help="Only letters until then, likewise.")
]
Ids = Annotated[
    list[str] | None, typer.Argument(help="Which ones, as `list` names them; or give filters.")
]
AllOption = Annotated[bool, typer.Option("--all", help="Every letter.")]

_TIME = "%Y-%m-%d %H:%M:%S"


@app.command("list")
def list_(
    reason: ReasonOption = None,
    topic: TopicOption = None,
    partition: PartitionOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many, the newest; counts are of all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the letters, oldest first, and how many each reason has."""
    from openbat.dead_letters.reading import read

    filters = _filters(reason, topic, partition, since, until)
    found = [listed for listed in run(read(connection())) if filters.match(listed)]
    shown = found[-limit:] if limit else found
    if as_json:
        print_json({"letters": [_document(listed) for listed in shown], "counts": counts(found)})
        return
    ids = max((len(listed.id) for listed in shown), default=0)
    reasons = max(map(len, REASONS))
    for listed in shown:
        letter = listed.letter
        typer.echo(
            f"{listed.id:<{ids}}  {letter.reason:<{reasons}}  {listed.at:{_TIME}}  "
            f"{listed.size_bytes:>8} B  {letter.detail}"
        )
    typer.echo(_summary(found))


@app.command()
def show(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` names it.")],
    raw: Annotated[
        bool, typer.Option("--raw", help="Write the value, and nothing else, as it is.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one letter: why and whence, and its value as JSON or hex."""
    from openbat.dead_letters.reading import read, values
    from openbat.dead_letters.shown import plain, shown

    if raw and as_json:
        raise typer.BadParameter("give --raw or --json, and one of them alone")
    kafka = connection()

    async def find() -> list[tuple[Listed, bytes]]:
        letters = named(await read(kafka), [letter_id])
        return [pair async for pair in values(kafka, letters)]

    found = run(find())
    if not found:
        raise DeadLettersError(f"the letter {letter_id} is gone since it was listed")
    ((listed, value),) = found
    if raw:
        sys.stdout.buffer.write(value)
        return
    if as_json:
        decoded = plain(value)
        found_value = {"hex": value.hex()} if decoded is None else {"json": decoded}
        print_json({**_document(listed), "value": found_value})
        return
    for title, text in {**_document(listed), "at": f"{listed.at:{_TIME}}"}.items():
        typer.echo(f"{title:<11} {text}")
    typer.echo()
    typer.echo(shown(value))


@app.command()
def replay(
    ids: Ids = None,
    reason: ReasonOption = None,
    topic: TopicOption = None,
    partition: PartitionOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    everything: AllOption = False,
    yes: YesOption = False,
    as_json: AsJson = False,
) -> None:
    """Process letters again, each exactly once. What fails again becomes a letter again.

    Asks before it, unless ids are given.
    """
    from openbat.dead_letters.kafka import replay as replay_letters

    filters = _filters(reason, topic, partition, since, until)
    kafka = connection()
    letters = _chosen(kafka, ids, filters, everything, yes or bool(ids), "Replay")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("replaying", total=len(letters))

        def done(listed: Listed, said: str) -> None:
            progress.advance(task)
            if said:
                console.print(f"{listed.id}: {said}", markup=False)

        totals = run(replay_letters(kafka, letters, done))
    end_with(totals, as_json, failed=bool(totals.refused))


@app.command()
def drop(
    ids: Ids = None,
    reason: ReasonOption = None,
    topic: TopicOption = None,
    partition: PartitionOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    everything: AllOption = False,
    yes: YesOption = False,
    as_json: AsJson = False,
) -> None:
    """Drop letters for good; asks before it."""
    from openbat.dead_letters.kafka import drop as drop_letters

    filters = _filters(reason, topic, partition, since, until)
    kafka = connection()
    letters = _chosen(kafka, ids, filters, everything, yes, "Drop")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("dropping", total=len(letters))
        run(drop_letters(kafka, letters, lambda count: progress.advance(task, count)))
    if as_json:
        print_json({"dropped": len(letters)})
    else:
        typer.echo(f"dropped={len(letters)}")


def _filters(
    reason: Reason | None,
    topic: str | None,
    partition: int | None,
    since: str | None,
    until: str | None,
) -> Filters:
    now = datetime.now(UTC)
    return Filters(
        reason,
        topic,
        partition,
        moment(since, now) if since else None,
        moment(until, now) if until else None,
    )


def _chosen(
    kafka: "Connection",
    ids: Sequence[str] | None,
    filters: Filters,
    everything: bool,
    yes: bool,
    verb: str,
) -> list[Listed]:
    """Return the letters that are meant; ask first, unless `yes`."""
    from openbat.dead_letters.reading import read

    if bool(ids) + (filters != Filters()) + everything != 1:
        raise DeadLettersError("give ids, or filters, or --all, and one of them alone")
    found = run(read(kafka))
    letters = named(found, ids) if ids else [listed for listed in found if filters.match(listed)]
    if letters and not yes:
        ask(f"{_summary(letters)}. {verb} them?")
    return letters


def _summary(letters: Sequence[Listed]) -> str:
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts(letters).items())
    noun = "dead letter" if len(letters) == 1 else "dead letters"
    return f"{len(letters)} {noun}{': ' if reasons else ''}{reasons}"


def _document(listed: Listed) -> dict[str, str | int]:
    letter = listed.letter
    return {
        "id": listed.id,
        "reason": letter.reason,
        "detail": letter.detail,
        "topic": letter.source.topic,
        "partition": letter.source.partition,
        "offset": letter.source.offset,
        "index": letter.source.index,
        "at": listed.at.isoformat(),
        "bytes": listed.size_bytes,
    }
