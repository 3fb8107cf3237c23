"""The `openbat` command. Each command imports what it needs when it runs."""

import sys
from typing import Annotated

import typer
from rich.console import Console

from openbat import __version__, chatbots_cli, export_cli, settings
from openbat.command import AsJson, end_with, located, print_json, run, run_on_topics
from openbat.dead_letters import cli as dead_letters
from openbat.settings import Settings
from openbat.status import cli as status

RUN, LOOK, DATA = "Run", "Look and manage", "Data"

HELP = """Captures chatbot conversations through Kafka into ClickHouse, counting exactly.

From nothing to a query, on this machine:

[bold]openbat local[/bold]  runs all of it; go on in another terminal

[bold]openbat import conversations.jsonl[/bold]  posts conversations, a capture a line

[bold]openbat status[/bold]  shows who works, what lags, and when the last message was written

[bold]curl http://127.0.0.1:8123 -d 'SELECT role, content FROM openbat.messages'[/bold]"""

EPILOG = (
    "Elsewhere set OPENBAT_KAFKA_BOOTSTRAP and OPENBAT_CLICKHOUSE_URL, then: openbat migrate; "
    "openbat worker conversations, openbat worker clickhouse, openbat worker analysis and openbat "
    "gateway, as many of each as it takes; openbat chatbots create NAME, which prints a key."
    "\n\n"
    "A local stack that runs is found by itself, anything else by the environment: README.md lists "
    "the variables. What lists or counts takes --json. Exit status: 0 done, 1 failed, 2 called "
    "wrongly, 3 (status alone) something is away, 130 interrupted; see docs/cli.md."
)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=HELP,
    epilog=EPILOG,
)
worker = typer.Typer(
    no_args_is_help=True, help="Run a worker; of each kind at most as many as there are partitions."
)
app.add_typer(worker, name="worker", rich_help_panel=RUN)
app.add_typer(chatbots_cli.app, name="chatbots", rich_help_panel=LOOK)
app.add_typer(dead_letters.app, name="dead-letters", rich_help_panel=LOOK)

Fd = Annotated[int | None, typer.Option(help="An inherited listening socket.", hidden=True)]


def main() -> None:
    """Run the command; an error that a person can mend is one sentence and exit status 1."""
    try:
        app()
    except Exception as error:
        from openbat.errors import sentence_of

        sentence = sentence_of(error)
        if sentence is None:
            raise
        _fail(sentence)


def _fail(message: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"openbat: {message}", markup=False)
    sys.exit(1)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"openbat-capture {__version__}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version, and end.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Take what can stand before a command."""


def _start(role: str) -> Settings:
    from openbat import logs
    from openbat.garbage import collect_rarely

    loaded = settings.load()
    logs.configure(loaded.log_level, role=role)
    collect_rarely()
    return loaded


@app.command(rich_help_panel=RUN)
def local() -> None:
    """Run the whole pipeline here: Kafka, ClickHouse, the gateway and the workers."""
    try:
        from openbat.local.stack import run_local
    except ImportError as error:
        _fail(f"{error.name} is missing: pip install 'openbat-capture[local]'")
    run_local(_start("local"))


@app.command(rich_help_panel=RUN)
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


@app.command(rich_help_panel=RUN)
def migrate(as_json: AsJson = False) -> None:
    """Make the Kafka topics and the ClickHouse schema, as far as they are missing."""
    from openbat.clickhouse import clickhouse_client
    from openbat.connection import connection_of
    from openbat.kafka import migrate_topics
    from sinks.migrate import BACKFILL_SECONDS, grant
    from sinks.migrate import migrate as migrate_clickhouse
    from sinks.reader import make_reader

    loaded = located(settings.load())
    made = run(migrate_topics(connection_of(loaded), loaded.partitions, loaded.replication_factor))
    client = clickhouse_client(
        loaded.clickhouse_url, loaded.clickhouse_ca_file, send_receive_timeout=BACKFILL_SECONDS
    )
    applied = migrate_clickhouse(client)
    refused = grant(client)
    if loaded.clickhouse_reader_password is not None:
        make_reader(client, loaded.clickhouse_reader_password)
    client.close()
    if as_json:
        print_json({"topics": made, "migrations": applied, "roles_refused": refused or None})
        return
    typer.echo(f"topics made: {', '.join(made) or 'none'}")
    typer.echo(f"migrations applied: {', '.join(applied) or 'none'}")
    typer.echo(
        f"roles: not made, ClickHouse refuses: {refused}"
        if refused
        else "roles: openbat_writer, openbat_reader"
    )


app.command("status", rich_help_panel=LOOK)(status.status)


app.command("export", rich_help_panel=DATA)(export_cli.export)


@app.command("import", rich_help_panel=DATA)
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
    as_json: AsJson = False,
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
    if totals.provisional:
        typer.echo(
            "Messages that `provisional` counts were durable, but not counted in time: how many of "
            "them were new is not known.",
            err=True,
        )
    end_with(totals, as_json, failed=bool(totals.failed))


@app.command(rich_help_panel=DATA)
def reanalyze(
    chatbot: Annotated[str, typer.Option(help="Its name or id.")],
    since: Annotated[str, typer.Option(help="Messages received from then on, UTC: 2026-11-01.")],
    analyzer: Annotated[
        list[str] | None, typer.Option(help="Ask this one alone; may be given again.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the workers are done.")] = True,
    as_json: AsJson = False,
) -> None:
    """Have messages analysed again; results of a newer version replace the old in the views."""
    from openbat.connection import connection_of
    from openbat.reanalyze import Wanted, parse_since
    from openbat.reanalyze import reanalyze as send_again

    loaded = located(settings.load())
    wanted = Wanted(chatbot, parse_since(since), analyzer or [])
    kafka = connection_of(loaded)
    totals = run_on_topics(kafka, lambda: send_again(kafka, loaded, wanted, wait=wait))
    end_with(totals, as_json)
