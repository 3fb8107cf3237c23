"""Every setting, read once from the environment and checked at boot."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import msgspec
from limits import parse
from msgspec import Meta, Struct

from schemas import sizes

PREFIX = "OPENBAT_"


class SettingsError(Exception):
    """Raised when a variable has a value that can't be used; says which one and why."""


Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=1, le=64)]
Seconds = Annotated[float, Meta(gt=0, le=3600)]


class Settings(Struct, frozen=True):
    """The settings. A field's variable is its name in capitals, after OPENBAT_."""

    data_dir: Annotated[
        Path, Meta(description="Everything that `openbat local` and the workers write.")
    ] = Path(".openbat")
    host: Annotated[str, Meta(description="Address that the gateway listens on.")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="The gateway's port; 0 takes a free one.")] = 8080
    kafka_port: Annotated[Port, Meta(description="`openbat local`: Kafka's port.")] = 9092
    clickhouse_port: Annotated[Port, Meta(description="`openbat local`: ClickHouse's port.")] = 8123
    gateways: Annotated[
        Count, Meta(description="`openbat local`: gateways; they share a port.")
    ] = 1
    conversations_workers: Annotated[
        Count, Meta(description="`openbat local`: conversations workers.")
    ] = 1
    clickhouse_workers: Annotated[
        Count, Meta(description="`openbat local`: ClickHouse workers.")
    ] = 1
    analysis_workers: Annotated[
        Annotated[int, Meta(ge=0, le=64)],
        Meta(description="`openbat local`: analysis workers; 0 for none."),
    ] = 1
    jars_dir: Annotated[
        Path | None,
        Meta(description="`openbat local`: where Kafka's jars are kept; `jars` in the data dir."),
    ] = None
    kafka_bootstrap: Annotated[
        str,
        Meta(
            description="Kafka's brokers, `host:port,host:port`.",
            pattern=r"^\s*[^\s,]+:[0-9]{1,5}(\s*,\s*[^\s,]+:[0-9]{1,5})*\s*$",
        ),
    ] = "127.0.0.1:9092"
    kafka_security_protocol: Annotated[
        str,
        Meta(
            description="`PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.",
            pattern="^(PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)$",
        ),
    ] = "PLAINTEXT"
    kafka_sasl_mechanism: Annotated[
        str,
        Meta(
            description="With SASL: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.",
            pattern="^(PLAIN|SCRAM-SHA-256|SCRAM-SHA-512)$",
        ),
    ] = "PLAIN"
    kafka_username: Annotated[str | None, Meta(description="With SASL: the user.")] = None
    kafka_password: Annotated[str | None, Meta(description="With SASL: its password.")] = None
    kafka_ca_file: Annotated[
        Path | None,
        Meta(description="With SSL: who signed the brokers' certificates, PEM; else the system's."),
    ] = None
    kafka_cert_file: Annotated[
        Path | None, Meta(description="With SSL: a client certificate, PEM, where brokers ask.")
    ] = None
    kafka_key_file: Annotated[
        Path | None, Meta(description="Its key, PEM, not encrypted; else in the same file.")
    ] = None
    clickhouse_url: Annotated[
        str,
        Meta(
            description="ClickHouse, `http[s]://[user:password@]host:port`.", pattern="^https?://"
        ),
    ] = "http://127.0.0.1:8123"
    clickhouse_ca_file: Annotated[
        Path | None,
        Meta(
            description="With https: who signed ClickHouse's certificate, PEM; else the system's."
        ),
    ] = None
    clickhouse_reader_password: Annotated[
        Annotated[str, Meta(pattern=r"^[!-~]{12,255}\Z")] | None,
        Meta(
            description="`openbat migrate`: makes the read-only user `openbat_analyst` with this "
            "password, 12 to 255 characters of ASCII, no space; without it there is none."
        ),
    ] = None
    partitions: Annotated[
        Annotated[int, Meta(ge=1, le=4096)],
        Meta(description="`openbat migrate`: partitions of the topics; chosen once."),
    ] = 8
    replication_factor: Annotated[
        Annotated[int, Meta(ge=1, le=9)],
        Meta(
            description="`openbat migrate`: copies of each topic; under 3 a lost disk loses data."
        ),
    ] = 3
    standby_replicas: Annotated[
        Annotated[int, Meta(ge=0, le=8)],
        Meta(
            description="Conversations workers, and analysis workers, that keep a copy of each "
            "partition's table."
        ),
    ] = 0
    table_cache_mebibytes: Annotated[
        Annotated[int, Meta(ge=16, le=65536)],
        Meta(
            description="What a conversations or analysis worker keeps of its table in memory, "
            "in MiB."
        ),
    ] = 128
    analyzers: Annotated[
        str,
        Meta(
            description="An analysis worker's analyzers, by name, with commas between: `offline`, "
            "`llm`, or another package's.",
            pattern=r"^\s*[^\s,]+(\s*,\s*[^\s,]+)*\s*$",
        ),
    ] = "offline"
    analysis_fallback: Annotated[
        str | None,
        Meta(
            description="The analyzer that stands in for one that is away or over its budget; "
            "without it analysis waits for the one, and leaves out what the budget does not allow."
        ),
    ] = None
    quiet_seconds: Annotated[
        Annotated[float, Meta(gt=0, le=31 * 86_400)],
        Meta(description="After how long without a message a conversation is judged as a whole."),
    ] = 600.0
    llm_url: Annotated[
        Annotated[str, Meta(pattern="^https?://")] | None,
        Meta(description="For the analyzer `llm`: an endpoint's base, `https://host/v1`."),
    ] = None
    llm_api_key: Annotated[str | None, Meta(description="Its key, where it asks for one.")] = None
    llm_model: Annotated[str | None, Meta(description="The model, as the endpoint calls it.")] = (
        None
    )
    llm_concurrency: Annotated[
        Annotated[int, Meta(ge=1, le=1024)],
        Meta(description="Requests that an analysis worker has under way at once."),
    ] = 8
    llm_timeout_seconds: Annotated[Seconds, Meta(description="How long one of them may take.")] = (
        60.0
    )
    llm_isolate: Annotated[
        bool,
        Meta(
            description="Whether each message has a request of its own, so that none can change "
            "another's result; it costs more."
        ),
    ] = False
    llm_prompt_price: Annotated[
        Annotated[float, Meta(ge=0, le=1e12)],
        Meta(description="What a million tokens of a prompt cost, in any currency."),
    ] = 0.0
    llm_completion_price: Annotated[
        Annotated[float, Meta(ge=0, le=1e12)],
        Meta(description="What a million tokens of an answer cost."),
    ] = 0.0
    reply_timeout_seconds: Annotated[
        Seconds, Meta(description="How long a gateway waits for the exact count.")
    ] = 1.0
    produce_timeout_seconds: Annotated[
        Seconds, Meta(description="How long a gateway waits for the log before it answers 503.")
    ] = 5.0
    body_timeout_seconds: Annotated[
        Seconds, Meta(description="How long a request's headers, and its body, may take.")
    ] = 10.0
    max_connections: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)],
        Meta(description="Of one gateway; one more is answered with 503."),
    ] = 20_000
    max_body_bytes: Annotated[
        Annotated[int, Meta(ge=1024, le=sizes.LARGEST_BODY)],
        Meta(description="A request's body after decompression."),
    ] = sizes.DEFAULT_BODY
    max_wait_seconds: Annotated[
        Annotated[int, Meta(ge=1, le=300)],
        Meta(description="The longest `Prefer: wait`; a longer one is cut to it."),
    ] = 30
    linger_milliseconds: Annotated[
        Annotated[float, Meta(ge=0, le=1000)],
        Meta(description="How long a gateway collects captures before it sends them, at least."),
    ] = 1.0
    longest_linger_milliseconds: Annotated[
        Annotated[float, Meta(ge=0, le=1000)],
        Meta(description="How long it collects them at most, where replies take long."),
    ] = 20.0
    unready_seconds: Annotated[
        Annotated[float, Meta(ge=0, le=300)],
        Meta(
            description="How long a gateway that is told to stop goes on as ever while `/readyz` "
            "says 503, for a load balancer to notice."
        ),
    ] = 0.0
    default_rate_limit: Annotated[
        str, Meta(description="Per chatbot that has none of its own: `off` or `600/minute`.")
    ] = "off"
    rate_limit_storage: Annotated[
        str,
        Meta(
            description="Where rates are counted; `async+redis://host:port` for several gateways."
        ),
    ] = "async+memory://"
    admin_key: Annotated[
        Annotated[str, Meta(pattern=r"^(?!ob_live_)[!-~]{16,255}\Z")] | None,
        Meta(
            description="The key of the admin API (docs/admin.md): 16 to 255 characters of ASCII, "
            "no space, not beginning with `ob_live_`; without it there is no admin API."
        ),
    ] = None
    metrics_port: Annotated[
        Port,
        Meta(
            description="A gateway or worker run by itself: where it serves Prometheus metrics "
            "and its health; 0 for nowhere."
        ),
    ] = 0
    metrics_host: Annotated[
        str,
        Meta(description="Address of that port; metrics name chatbots, so mind who reaches it."),
    ] = "127.0.0.1"
    trace_ratio: Annotated[
        Annotated[float, Meta(ge=0, le=1)],
        Meta(
            description="Of the captures whose client sends no `traceparent`, how many are traced, "
            "0 to 1; only where `OTEL_EXPORTER_OTLP_ENDPOINT` names a collector."
        ),
    ] = 0.01
    log_level: Annotated[
        str,
        Meta(description="debug, info, warning or error.", pattern="^(debug|info|warning|error)$"),
    ] = "info"

    def __repr__(self) -> str:
        return "Settings(...)"  # a URL among them may hold a password

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []  # rich would look into the fields


UNSECURED = (
    "kafka_security_protocol",
    "kafka_sasl_mechanism",
    "kafka_username",
    "kafka_password",
    "kafka_ca_file",
    "kafka_cert_file",
    "kafka_key_file",
    "clickhouse_ca_file",
)
"""Settings that a local stack leaves at their defaults: its servers listen here alone."""


def described() -> dict[str, str]:
    """Return what each setting is, as the README tells it."""
    hints = get_type_hints(Settings, include_extras=True)
    return {
        name: next(meta.description for meta in hints[name].__metadata__ if meta.description)
        for name in Settings.__struct_fields__
    }


def load(environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings that the environment gives.

    Raises:
        SettingsError: a variable's value can't be used.

    """
    names = {PREFIX + name.upper(): name for name in Settings.__struct_fields__}
    given = {names[key]: value for key, value in environment.items() if key in names and value}
    try:
        settings = msgspec.convert(given, Settings, strict=False, dec_hook=_path)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        name = path.rstrip("`")
        message = message.replace("`int`", "a whole number").replace("`float`", "a number")
        if "regex" in message:
            message = f"Expected: {described()[name]}"
        raise SettingsError(
            f"{PREFIX}{name.upper()}: {message.replace(', got `str`', '')}"
        ) from None
    _check_security(settings)
    if settings.default_rate_limit != "off":
        try:
            usable = parse(settings.default_rate_limit).amount > 0
        except ValueError:
            usable = False
        if not usable:
            raise SettingsError(
                "OPENBAT_DEFAULT_RATE_LIMIT: expected `off` or a rate such as `600/minute`"
            )
    return settings


def _check_security(settings: Settings) -> None:
    """Refuse what has no effect: who sets a password or a CA does not expect plain text."""
    protocol = settings.kafka_security_protocol
    sasl, ssl = protocol.startswith("SASL_"), protocol.endswith("SSL")
    for name, belongs, where in (
        ("kafka_username", sasl, "SASL_SSL or SASL_PLAINTEXT"),
        ("kafka_password", sasl, "SASL_SSL or SASL_PLAINTEXT"),
        ("kafka_ca_file", ssl, "SSL or SASL_SSL"),
        ("kafka_cert_file", ssl, "SSL or SASL_SSL"),
        ("kafka_key_file", ssl, "SSL or SASL_SSL"),
    ):
        if getattr(settings, name) is not None and not belongs:
            raise SettingsError(
                f"{PREFIX}{name.upper()}: has no effect with {protocol}; set "
                f"OPENBAT_KAFKA_SECURITY_PROTOCOL to {where}, or unset it"
            )
    for name in ("kafka_username", "kafka_password"):
        if sasl and getattr(settings, name) is None:
            raise SettingsError(f"{PREFIX}{name.upper()}: is missing; {protocol} needs it")
    if settings.kafka_key_file is not None and settings.kafka_cert_file is None:
        raise SettingsError("OPENBAT_KAFKA_CERT_FILE: is missing; OPENBAT_KAFKA_KEY_FILE needs it")
    if settings.clickhouse_ca_file is not None and not settings.clickhouse_url.startswith("https:"):
        raise SettingsError(
            "OPENBAT_CLICKHOUSE_CA_FILE: has no effect with http; "
            "let OPENBAT_CLICKHOUSE_URL begin with https://, or unset it"
        )


def _path(kind: type, value: object) -> object:
    if kind is Path:
        return Path(str(value))
    raise NotImplementedError(kind)
