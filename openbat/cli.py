"""The `openbat` command. Each command imports what it needs when it runs."""

import sys
from typing import Annotated

import typer
from aiokafka.errors import KafkaError
from rich.console import Console

from openbat import logs, settings
from openbat.chatbots import ChatbotError
from openbat.command import connection, located, run
from openbat.connection import UnreachableError, connection_of
from openbat.dead_letters import cli as dead_letters
from openbat.dead_letters.listed import DeadLettersError
from openbat.kafka import TopicsError
from openbat.settings import Settings, SettingsError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Captures chatbot conversations through Kafka into ClickHouse, counting exactly.",
)
worker = typer.Typer(no_args_is_help=True, help="Run a worker.")
chatbots = typer.Typer(no_args_is_help=True, help="Make and change chatbots.")
app.add_typer(worker, name="worker")
app.add_typer(chatbots, name="chatbots")
app.add_typer(dead_letters.app, name="dead-letters")

Fd = Annotated[int | None, typer.Option(help="An inherited listening socket.", hidden=True)]
Name = Annotated[str, typer.Argument(help="The chatbot's name or id.")]


def main() -> None:
    """Run the command; an error that a person can mend is one sentence and exit status 1."""
    try:
        app()
    except Exception as error:
        if not isinstance(error, _mendable()):
            raise
        _fail(str(error))


def _mendable() -> tuple[type[Exception], ...]:
    from clickhouse_connect.driver.exceptions import ClickHouseError

    from openbat.clickhouse import ClickHouseUnreachableError
    from openbat.importer import ImportStoppedError
    from openbat.local.jars import JarsError
    from openbat.local.java import KafkaSetupError
    from openbat.local.stack import LocalError
    from openbat.local.supervisor import StartError
    from openbat.reanalyze import ReanalysisError

    return (
        SettingsError, UnreachableError, TopicsError, ChatbotError, ImportStoppedError, JarsError,
        KafkaSetupError, LocalError, StartError, KafkaError, ClickHouseError,
        ClickHouseUnreachableError, DeadLettersError, ReanalysisError,
    )  # fmt: skip


def _fail(message: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"openbat: {message}", markup=False)
    sys.exit(1)


def _start(role: str) -> Settings:
    loaded = settings.load()
    logs.configure(loaded.log_level, role=role)
    return loaded


@app.command()
def local() -> None:
    """Run the whole pipeline here: Kafka, ClickHouse, the gateway and the workers."""
    try:
        from openbat.local.stack import run_local
    except ImportError as error:
        _fail(f"{error.name} is missing: pip install 'openbat-capture[local]'")
    run_local(_start("local"))


@app.command()
def gateway(fd: Fd = None) -> None:
    """Serve the capture API."""
    from openbat.gateway_role import run_gateway

    loaded = _start("gateway")
    try:
        run_gateway(loaded, fd)
    except OSError as error:
        _fail(f"port {loaded.port}: {error.strerror}; OPENBAT_PORT names another one")


@worker.command("conversations")
def worker_conversations() -> None:
    """Deduplicate messages, update conversations, fan out."""
    from openbat.worker_role import run_conversations

    run_conversations(_start("conversations"))


@worker.command("clickhouse")
def worker_clickhouse() -> None:
    """Write messages and conversations to ClickHouse."""
    from openbat.worker_role import run_clickhouse

    run_clickhouse(_start("clickhouse"))


@worker.command("analysis")
def worker_analysis() -> None:
    """Analyse messages and quiet conversations: sentiment, topics and more."""
    from openbat.analysis_role import run_analysis

    run_analysis(_start("analysis"))


@app.command(hidden=True)
def local_clickhouse(fd: Fd = None) -> None:
    """Serve ClickHouse's engine for `openbat local`."""
    from openbat import notify
    from openbat.local.clickhouse import serve

    loaded = _start("clickhouse-server")
    serve(loaded.data_dir / "clickhouse", fd, "127.0.0.1", loaded.clickhouse_port, notify.ready)


@app.command()
def migrate() -> None:
    """Make the Kafka topics and the ClickHouse schema, as far as they are missing."""
    from openbat.clickhouse import clickhouse_client
    from openbat.kafka import migrate_topics
    from sinks.migrate import grant
    from sinks.migrate import migrate as migrate_clickhouse

    loaded = located(settings.load())
    made = run(migrate_topics(connection_of(loaded), loaded.partitions, loaded.replication_factor))
    client = clickhouse_client(loaded.clickhouse_url, loaded.clickhouse_ca_file)
    applied = migrate_clickhouse(client)
    refused = grant(client)
    client.close()
    typer.echo(f"topics made: {', '.join(made) or 'none'}")
    typer.echo(f"migrations applied: {', '.join(applied) or 'none'}")
    typer.echo(
        f"roles: not made, ClickHouse refuses: {refused}"
        if refused
        else "roles: openbat_writer, openbat_reader"
    )


@app.command("import")
def import_(
    file: Annotated[str, typer.Argument(help="JSON Lines, plain or gzip; - for standard input.")],
    url: Annotated[
        str | None, typer.Option(help="The gateway; default: the local stack's.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="OPENBAT_API_KEY", help="Default: the chatbot demo's.")
    ] = None,
    turn_by_turn: Annotated[
        bool, typer.Option("--turn-by-turn", help="Post as a chatbot does, not 100 at once.")
    ] = False,
) -> None:
    """Post conversations, one a line in the shape of a capture, with any number of messages."""
    from openbat.importer import Target, import_file
    from openbat.local import state

    running = state.read(settings.load().data_dir)
    url = url or (running.gateway_url if running else None)
    api_key = api_key or (running.api_key if running else None)
    if url is None or api_key is None:
        _fail("no local stack runs: start one with `openbat local`, or give --url and --api-key")
        return
    totals = run(import_file(file, Target(url, api_key), turn_by_turn))
    typer.echo(str(totals))
    if totals.failed:
        raise typer.Exit(1)


@app.command()
def reanalyze(
    chatbot: Annotated[str, typer.Option(help="Its name or id.")],
    since: Annotated[str, typer.Option(help="Messages received from then on, UTC: 2026-11-01.")],
    analyzer: Annotated[
        list[str] | None, typer.Option(help="Ask this one alone; may be given again.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the workers are done.")] = True,
) -> None:
    """Have messages analysed again; results of a newer version replace the old in the views."""
    from openbat.reanalyze import Wanted, parse_since
    from openbat.reanalyze import reanalyze as send_again

    loaded = located(settings.load())
    wanted = Wanted(chatbot, parse_since(since), analyzer or [])
    typer.echo(str(run(send_again(connection_of(loaded), loaded, wanted, wait=wait))))


@chatbots.command()
def create(name: Annotated[str, typer.Argument(help="What it is called.")]) -> None:
    """Make a chatbot; print its key, once."""
    from openbat.chatbots import create as create_chatbot
    from openbat.chatbots import new_key

    key = new_key()
    run(create_chatbot(connection(), name, key))
    typer.echo(key)


@chatbots.command("list")
def list_() -> None:
    """List the chatbots: name, id, beginning of the key, state, when made."""
    from openbat.kafka import read_registry

    found = run(read_registry(connection())).chatbots()
    width = max((len(bot.name) for bot in found), default=0)
    for bot in found:
        created = f"{bot.created_at:%Y-%m-%d %H:%M}"
        typer.echo(f"{bot.name:<{width}}  {bot.id}  {bot.key_prefix}...  {bot.state:<8}  {created}")


@chatbots.command()
def show(name: Name) -> None:
    """Show one chatbot."""
    from openbat.chatbots import FOREVER, analysis_rows, find
    from openbat.kafka import read_registry

    bot = find(run(read_registry(connection())), name)
    rows = {
        "name": bot.name,
        "id": bot.id,
        "key": f"{bot.key_prefix}...",
        "state": bot.state,
        "created": bot.created_at.isoformat(),
        "schema": " ".join(f"{field}={kind}" for field, kind in bot.schema.items()) or "(empty)",
        "rate-limit": bot.settings.rate_limit or "(the gateway's default)",
        **analysis_rows(bot.settings),
        "remember-ids": f"{bot.settings.remember_days or FOREVER}",
    }
    for title, value in rows.items():
        typer.echo(f"{title:<14} {value}")


@chatbots.command("rotate-key")
def rotate_key(name: Name) -> None:
    """Give a chatbot a new key; print it, once. The old one stops at once."""
    from openbat.chatbots import new_key, update, with_key
    from openbat.local.demo import keep_demo_key

    loaded = settings.load()
    key = new_key()
    bot = run(update(connection(), name, lambda bot: with_key(bot, key)))
    keep_demo_key(loaded.data_dir, bot, key)
    typer.echo(key)


@chatbots.command()
def archive(name: Name) -> None:
    """Let a chatbot take no more captures. Its data stays."""
    from openbat.chatbots import archived, update

    bot = run(update(connection(), name, archived))
    typer.echo(f"{bot.name} is archived")


@chatbots.command("set-schema")
def set_schema(
    name: Name,
    fields: Annotated[list[str], typer.Argument(help="field=string|number|boolean ...")],
) -> None:
    """Say which custom fields a chatbot has, and of which types."""
    from openbat.chatbots import update, with_schema

    types = _pairs(fields)
    bot = run(update(connection(), name, lambda bot: with_schema(bot, types)))
    typer.echo(" ".join(f"{field}={kind}" for field, kind in bot.schema.items()))


@chatbots.command("set")
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
    from openbat.chatbots import update, with_settings

    changes = _pairs(values)
    bot = run(update(connection(), name, lambda bot: with_settings(bot, changes)))
    typer.echo(f"{bot.name}: {' '.join(f'{key}={value}' for key, value in changes.items())}")


def _pairs(arguments: list[str]) -> dict[str, str]:
    pairs = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals:
            raise ChatbotError(f"{argument}: expected name=value")
        pairs[name] = value
    return pairs
