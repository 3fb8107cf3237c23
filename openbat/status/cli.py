"""The `openbat status` command. It imports what it needs when it runs."""

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from openbat import settings
from openbat.command import AsJson, located, print_json, run

if TYPE_CHECKING:
    from openbat.status.look import Eyes

NOT_WELL = 3
"""Exit status where a part is away, or a role has no member: docs/cli.md."""
PLAIN_COLUMNS = 400
"""Wide enough that no line of what is piped is cut."""


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again.")] = False,
    every: Annotated[
        float, typer.Option(min=0.5, max=3600, help="With --watch: seconds between two looks.")
    ] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Show at a glance what runs, what lags, the last write and dead letters.

    Exit status 3 where Kafka or ClickHouse does not answer, a role has no worker, or a process of
    the local stack is not well.
    """
    if watch and as_json:
        raise typer.BadParameter("--watch goes on for ever, --json is one document: give one")
    if watch:
        run(_watch(every))
        return
    if not run(_once(as_json)):
        raise typer.Exit(NOT_WELL)


async def _once(as_json: bool) -> bool:
    from openbat.status.judge import judge
    from openbat.status.shown import document, rendered

    seen = await eyes_of(located(settings.load())).look()
    judgement = judge(seen)
    if as_json:
        print_json(document(seen, judgement))
    else:
        _console().print(rendered(seen, judgement))
    return not judgement.problems


async def _watch(every_seconds: float) -> None:
    """Look until interrupted. A local stack that comes, goes or moves is followed."""
    from rich.live import Live

    from openbat.status.judge import judge
    from openbat.status.shown import rendered

    console = _console()
    found = located(settings.load())
    eyes = eyes_of(found)
    with contextlib.ExitStack() as exits:
        live = None
        if console.is_terminal:
            live = exits.enter_context(Live(console=console, auto_refresh=False, screen=True))
        while True:
            now = located(settings.load())
            if now != found:
                found, eyes = now, eyes_of(now)
            seen = await eyes.look()
            shown = rendered(seen, judge(seen))
            if live is not None:
                live.update(shown, refresh=True)
            else:
                console.print(f"{seen.at:%Y-%m-%d %H:%M:%S} UTC")
                console.print(shown)
            await asyncio.sleep(every_seconds)


def eyes_of(found: settings.Settings) -> "Eyes":
    """Return what looks there, and knows whether somebody said where."""
    from openbat.status.look import Eyes

    return Eyes(found, named=bool(os.environ.get(f"{settings.PREFIX}KAFKA_BOOTSTRAP")))


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_COLUMNS
    return console
