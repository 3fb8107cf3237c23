"""What was seen, for a person and as JSON. Pure."""

from collections.abc import Iterator
from typing import Any

from msgspec.structs import asdict
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from openbat.status.judge import Judgement, age
from openbat.status.seen import Part, ProcessSeen, RoleSeen, Seen

AWAY = "not seen, see below"


def document(seen: Seen, judgement: Judgement) -> dict[str, Any]:
    """Return the JSON document of docs/cli.md."""
    return {"ok": not judgement.problems, **asdict(seen), **judgement._asdict()}


def rendered(seen: Seen, judgement: Judgement) -> RenderableType:
    """Return it at a glance: a table of roles, a line for each other part, what is wrong."""
    parts: list[RenderableType] = [_roles(seen.roles)] if seen.roles is not None else []
    parts += [Text(""), *_lines(seen), Text("")]
    parts += [Text(f"! {sentence}", "bold red") for sentence in judgement.problems]
    parts += [Text(f"- {sentence}", "yellow") for sentence in judgement.notes]
    if not (judgement.problems or judgement.notes):
        parts.append(Text("All is well.", "green"))
    return Group(*parts)


def _roles(roles: list[RoleSeen]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, justify in (
        ("role", "left"), ("members", "right"), ("reads", "left"), ("partitions", "right"),
        ("lag", "right"), ("oldest", "right"),
    ):  # fmt: skip
        table.add_column(title, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for role in roles:
        for at, topic in enumerate(role.topics):
            members = Text(str(role.members), "" if role.members else "bold red")
            table.add_row(
                role.role if at == 0 else "",
                members if at == 0 else "",
                topic.topic,
                f"{topic.read} of {topic.partitions}",
                f"{topic.lag_records:,}",
                "-" if topic.oldest_seconds is None else age(topic.oldest_seconds),
            )
    return table


def _lines(seen: Seen) -> Iterator[Text]:
    if seen.roles is None:
        yield _line("Workers", "not known", seen, "roles")
    rows = seen.clickhouse
    if rows is None:
        yield _line("ClickHouse", "", seen, "clickhouse")
    elif rows.message_rows is None:
        yield _line("ClickHouse", "answers, without a table of messages")
    elif rows.newest_received_at is None:
        yield _line("ClickHouse", "no message yet")
    else:
        ago = max(0.0, (seen.at - rows.newest_received_at).total_seconds())
        yield _line(
            "ClickHouse",
            f"{rows.message_rows:,} rows of messages, the newest received {age(ago)} ago "
            f"({rows.newest_received_at:%Y-%m-%d %H:%M:%S} UTC)",
        )
    letters = seen.dead_letters
    if letters is None:
        yield _line("Dead letters", "", seen, "dead_letters")
    else:
        reasons = ", ".join(f"{reason} {count}" for reason, count in letters.reasons.items())
        yield _line("Dead letters", f"{letters.total}: {reasons}" if reasons else "none")
    if seen.processes is not None:
        yield _line("Local stack", ", ".join(map(_process, seen.processes)))


def _line(title: str, text: str, seen: Seen | None = None, part: Part | None = None) -> Text:
    away = seen is not None and part in seen.away
    return Text.assemble((f"{title:<14}", "bold"), (AWAY, "bold red") if away else text)


def _process(process: ProcessSeen) -> str:
    if not process.alive:
        state = " (not alive)"
    elif process.answers is False:
        state = " (does not answer)"
    else:
        state = " (not ready)" if process.reasons else ""
    return f"{process.name} {process.pid}{state}"
