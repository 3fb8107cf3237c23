"""The `openbat chatbots` commands. Each imports what it needs when it runs."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from openbat import settings
from openbat.command import (
    AsJson,
    YesOption,
    ask,
    connection,
    end_with,
    json_of,
    print_json,
    run_on_topics,
)
from schemas.chatbots import Chatbot

if TYPE_CHECKING:
    from gateway.registry import Registry

CHANGE, BACK_UP = "Make and change", "Back up"

app = typer.Typer(
    no_args_is_help=True,
    help="Make and change chatbots; each has a key, which is shown once.",
    epilog="A change reaches every gateway within a second.",
)

Name = Annotated[str, typer.Argument(help="The chatbot's name or id.")]

_TIME = "%Y-%m-%d %H:%M"


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the chatbots: name, id, beginning of the key, state, when made."""
    from gateway.admin_types import ChatbotView

    found = _registry().chatbots()
    if as_json:
        print_json({"chatbots": [ChatbotView.of(bot) for bot in found]})
        return
    width = max((len(bot.name) for bot in found), default=0)
    for bot in found:
        typer.echo(
            f"{bot.name:<{width}}  {bot.id}  {bot.key_prefix}...  {bot.shown_state:<8}  "
            f"{bot.created_at:{_TIME}}"
        )


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Show one chatbot."""
    from gateway.admin_types import ChatbotView
    from openbat.chatbots import find

    bot = find(_registry(), name)
    if as_json:
        print_json(ChatbotView.of(bot))
        return
    for title, value in _rows(bot).items():
        typer.echo(f"{title:<14} {value}")


def _rows(bot: Chatbot) -> dict[str, str]:
    from openbat.chatbot_settings import FOREVER, analysis_rows

    return {
        "name": bot.name,
        "id": bot.id,
        "key": f"{bot.key_prefix}...",
        "state": bot.shown_state,
        "created": f"{bot.created_at:{_TIME}}",
        "schema": " ".join(f"{field}={kind}" for field, kind in bot.schema.items()) or "(empty)",
        "rate-limit": bot.settings.rate_limit or "(the gateway's default)",
        **analysis_rows(bot.settings),
        "remember-ids": f"{bot.settings.remember_days or FOREVER}",
    }


@app.command(rich_help_panel=CHANGE)
def create(name: Annotated[str, typer.Argument(help="What it is called.")]) -> None:
    """Make a chatbot; print its key, once."""
    from openbat.chatbots import create as create_chatbot
    from openbat.chatbots import new_key

    key = new_key()
    kafka = connection()
    run_on_topics(kafka, lambda: create_chatbot(kafka, name, key))
    typer.echo(key)


@app.command("rotate-key", rich_help_panel=CHANGE)
def rotate_key(name: Name) -> None:
    """Give a chatbot a new key; print it, once.

    The old key is answered with 401 at every gateway within a second; there is no time in which
    both work. So first have clients re-read their key, then rotate: docs/clients.md has the order.
    """
    from openbat.chatbots import new_key, with_key
    from openbat.local.demo import keep_demo_key

    loaded = settings.load()
    key = new_key()
    bot = _update(name, lambda bot: with_key(bot, key))
    keep_demo_key(loaded.data_dir, bot, key, found_there=True)
    typer.echo(key)
    typer.echo(
        "The old key stops at every gateway within a second: a client that is answered with 401 "
        "is to send the same again with this one.",
        err=True,
    )


@app.command(rich_help_panel=CHANGE)
def archive(name: Name, yes: YesOption = False) -> None:
    """Let a chatbot take no more captures; asks before it. Its data stays.

    Nothing but restoring a copy of it undoes this.
    """
    from openbat.chatbots import archived, find

    if not yes:
        bot = find(_registry(), name)
        ask(
            f"{bot.name} will take no more captures, and nothing but restoring a copy of it "
            "(`openbat chatbots export`) undoes that. Archive it?"
        )
    bot = _update(name, archived)
    typer.echo(f"{bot.name} is archived")


@app.command("set-schema", rich_help_panel=CHANGE)
def set_schema(
    name: Name,
    fields: Annotated[list[str], typer.Argument(help="field=string|number|boolean ...")],
) -> None:
    """Say which custom fields a chatbot has, and of which types."""
    from openbat.chatbots import with_schema

    types = _pairs(fields)
    bot = _update(name, lambda bot: with_schema(bot, types))
    typer.echo(" ".join(f"{field}={kind}" for field, kind in bot.schema.items()))


@app.command("set", rich_help_panel=CHANGE)
def set_(
    name: Name,
    values: Annotated[
        list[str],
        typer.Argument(
            help="rate-limit=600/minute|off|default remember-ids=DAYS|forever analysis=on|off "
            "analysis.KIND=on|off intents=A,B|default flags=A,B|default tokens-per-day=N|unlimited "
            "cost-per-day=N|unlimited"
        ),
    ],
) -> None:
    """Change a chatbot's settings."""
    from openbat.chatbot_settings import with_settings

    changes = _pairs(values)
    bot = _update(name, lambda bot: with_settings(bot, changes))
    typer.echo(f"{bot.name}: {' '.join(f'{key}={value}' for key, value in changes.items())}")


@app.command(rich_help_panel=BACK_UP)
def export(
    file: Annotated[str, typer.Argument(help="Written whole; - for standard output.")] = "-",
) -> None:
    """Write all chatbots, with their hashed keys, as one JSON document."""
    from openbat.chatbot_backup import backup_of
    from openbat.chatbots import ChatbotError
    from openbat.local.state import write_private

    content = json_of(backup_of(_registry(), datetime.now(UTC)))
    if file == "-":
        typer.echo(content, nl=False)
        return
    try:
        write_private(Path(file), content)
    except OSError as error:
        raise ChatbotError(f"{file} can't be written: {error.strerror}; name another") from None


@app.command(rich_help_panel=BACK_UP)
def restore(
    file: Annotated[str, typer.Argument(help="What `export` wrote; - for standard input.")],
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Put back those too that were changed since, keys too; and replace a `demo` that "
            "a local stack made and nobody used.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the chatbots that are missing; before gateways run, where the registry is new."""
    from openbat.chatbot_backup import parse
    from openbat.chatbot_backup import restore as restore_backup
    from openbat.chatbots import ChatbotError

    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise ChatbotError(f"{file} can't be read: {error.strerror}; name another") from None
    backup = parse(content)
    kafka = connection()
    done = run_on_topics(kafka, lambda: restore_backup(kafka, backup, overwrite))
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for sentence in done.refused:
        console.print(sentence, markup=False)
    end_with(done, as_json, failed=bool(done.refused))


def _registry() -> "Registry":
    from openbat.kafka import read_registry

    kafka = connection()
    return run_on_topics(kafka, lambda: read_registry(kafka))


def _update(name: str, change: Callable[[Chatbot], Chatbot]) -> Chatbot:
    from openbat.chatbots import update

    kafka = connection()
    return run_on_topics(kafka, lambda: update(kafka, name, change))


def _pairs(arguments: list[str]) -> dict[str, str]:
    from openbat.chatbots import ChatbotError

    pairs = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals:
            raise ChatbotError(f"{argument}: expected name=value")
        pairs[name] = value
    return pairs
