"""Settings: checked at boot, and never shown."""

from pathlib import Path

import pytest

from openbat.gateway_role import Gateway
from openbat.settings import PREFIX, Settings, SettingsError, load
from schemas import sizes


def test_nothing_needs_to_be_set() -> None:
    assert load({}) == Settings()
    assert load({"PORT": "1", "OPENBAT_SOMETHING_ELSE": "x", "OPENBAT_PORT": ""}) == Settings()


def test_what_is_expected_is_told_in_words() -> None:
    with pytest.raises(SettingsError, match=r"^OPENBAT_LOG_LEVEL: Expected: debug, info, warning"):
        load({"OPENBAT_LOG_LEVEL": "loud"})
    assert load({"OPENBAT_KAFKA_BOOTSTRAP": "a:1, [::1]:2,b.c:3"})


def test_what_is_set_is_read_in_its_type() -> None:
    settings = load(
        {
            "OPENBAT_DATA_DIR": "/data",
            "OPENBAT_PORT": "0",
            "OPENBAT_JARS_DIR": "jars",
            "OPENBAT_LINGER_MILLISECONDS": "0.5",
            "OPENBAT_DEFAULT_RATE_LIMIT": "600/minute",
            "OPENBAT_MAX_BODY_BYTES": str(sizes.LARGEST_BODY),
            "OPENBAT_ANALYSIS_WORKERS": "0",
            "OPENBAT_ANALYZERS": "offline, llm",
            "OPENBAT_ANALYSIS_FALLBACK": "offline",
            "OPENBAT_QUIET_SECONDS": "2.5",
            "OPENBAT_LLM_URL": "https://host/v1",
            "OPENBAT_LLM_ISOLATE": "true",
            "OPENBAT_LLM_PROMPT_PRICE": "0.15",
        }
    )
    assert settings == Settings(
        data_dir=Path("/data"),
        port=0,
        jars_dir=Path("jars"),
        linger_milliseconds=0.5,
        default_rate_limit="600/minute",
        max_body_bytes=sizes.LARGEST_BODY,
        analysis_workers=0,
        analyzers="offline, llm",
        analysis_fallback="offline",
        quiet_seconds=2.5,
        llm_url="https://host/v1",
        llm_isolate=True,
        llm_prompt_price=0.15,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("KAFKA_PORT", "1.5"),
        ("GATEWAYS", "0"),
        ("CONVERSATIONS_WORKERS", "65"),
        ("KAFKA_BOOTSTRAP", "x"),
        ("KAFKA_BOOTSTRAP", "kafka"),
        ("KAFKA_BOOTSTRAP", "kafka:9092,"),
        ("KAFKA_BOOTSTRAP", "kafka:port"),
        ("CLICKHOUSE_URL", "ftp://host"),
        ("PARTITIONS", "0"),
        ("PARTITIONS", "eight"),
        ("REPLICATION_FACTOR", "10"),
        ("STANDBY_REPLICAS", "9"),
        ("TABLE_CACHE_MEBIBYTES", "15"),
        ("REPLY_TIMEOUT_SECONDS", "0"),
        ("REPLY_TIMEOUT_SECONDS", "nan"),
        ("PRODUCE_TIMEOUT_SECONDS", "inf"),
        ("BODY_TIMEOUT_SECONDS", "3601"),
        ("MAX_BODY_BYTES", "1023"),
        ("MAX_BODY_BYTES", str(sizes.LARGEST_BODY + 1)),
        ("MAX_BODY_BYTES", "1MiB"),
        ("MAX_WAIT_SECONDS", "0"),
        ("LINGER_MILLISECONDS", "-1"),
        ("LINGER_MILLISECONDS", "nan"),
        ("DEFAULT_RATE_LIMIT", "many"),
        ("DEFAULT_RATE_LIMIT", "600/fortnight"),
        ("LOG_LEVEL", "loud"),
        ("KAFKA_SECURITY_PROTOCOL", "TLS"),
        ("KAFKA_SASL_MECHANISM", "GSSAPI"),
        ("ANALYSIS_WORKERS", "65"),
        ("ANALYSIS_WORKERS", "-1"),
        ("ANALYZERS", "offline,"),
        ("ANALYZERS", "offline llm"),
        ("QUIET_SECONDS", "0"),
        ("QUIET_SECONDS", "inf"),
        ("QUIET_SECONDS", "ten minutes"),
        ("LLM_URL", "host/v1"),
        ("LLM_CONCURRENCY", "0"),
        ("LLM_TIMEOUT_SECONDS", "0"),
        ("LLM_ISOLATE", "perhaps"),
        ("LLM_PROMPT_PRICE", "-0.1"),
        ("LLM_PROMPT_PRICE", "nan"),
        ("LLM_COMPLETION_PRICE", "inf"),
        ("ADMIN_KEY", "secret"),
        ("ADMIN_KEY", "secret secret secret"),
        ("ADMIN_KEY", "secret-secret-secret\n"),
        ("ADMIN_KEY", "secret-secret-sécret"),
        ("ADMIN_KEY", "secret" * 50),
        ("ADMIN_KEY", "ob_live_secretsecret"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as error:
        load({PREFIX + name: value})
    assert str(error.value).startswith(f"{PREFIX}{name}: ")
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


SASL = {"OPENBAT_KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}
TLS = {"OPENBAT_KAFKA_SECURITY_PROTOCOL": "SSL"}
USER = {"OPENBAT_KAFKA_USERNAME": "openbat", "OPENBAT_KAFKA_PASSWORD": "secret"}


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        (SASL, "KAFKA_USERNAME"),
        (SASL | {"OPENBAT_KAFKA_USERNAME": "openbat"}, "KAFKA_PASSWORD"),
        (USER, "KAFKA_USERNAME"),
        (TLS | USER, "KAFKA_USERNAME"),
        ({"OPENBAT_KAFKA_PASSWORD": "secret"}, "KAFKA_PASSWORD"),
        ({"OPENBAT_KAFKA_CA_FILE": "ca.pem"}, "KAFKA_CA_FILE"),
        (
            USER
            | {
                "OPENBAT_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
                "OPENBAT_KAFKA_CA_FILE": "ca.pem",
            },
            "KAFKA_CA_FILE",
        ),
        ({"OPENBAT_KAFKA_CERT_FILE": "own.pem"}, "KAFKA_CERT_FILE"),
        (TLS | {"OPENBAT_KAFKA_KEY_FILE": "key.pem"}, "KAFKA_CERT_FILE"),
        ({"OPENBAT_CLICKHOUSE_CA_FILE": "ca.pem"}, "CLICKHOUSE_CA_FILE"),
    ],
)
def test_security_that_is_half_set_is_an_error(environment: dict[str, str], name: str) -> None:
    """Who names a user or a CA does not expect to speak in the clear."""
    with pytest.raises(SettingsError) as error:
        load(environment)
    assert str(error.value).startswith(f"{PREFIX}{name}: ")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("value", ["nowhere", "memory://", "async+nowhere://"])
def test_a_storage_of_rates_that_cannot_be_used_is_found_out_at_boot(value: str) -> None:
    with pytest.raises(SettingsError, match=r"^OPENBAT_RATE_LIMIT_STORAGE: "):
        Gateway(load({"OPENBAT_RATE_LIMIT_STORAGE": value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLICKHOUSE_URL", "http://user:secret@host:8123"),
        ("RATE_LIMIT_STORAGE", "async+redis://:secret@host"),
    ],
)
def test_a_password_is_not_shown(name: str, value: str) -> None:
    settings = load({PREFIX + name: value})
    assert value in {settings.clickhouse_url, settings.rate_limit_storage}
    for shown in (repr(settings), str(settings), f"{settings}"):
        assert "secret" not in shown


def test_the_key_of_a_model_is_not_shown() -> None:
    settings = load({"OPENBAT_LLM_API_KEY": "secret"})
    assert settings.llm_api_key == "secret"
    assert "secret" not in repr(settings)


def test_the_admin_key_is_not_shown() -> None:
    assert load({}).admin_key is None
    settings = load({"OPENBAT_ADMIN_KEY": "secret-secret-secret"})
    assert settings.admin_key == "secret-secret-secret"
    gateway = Gateway(settings)
    for shown in (repr(settings), f"{settings}", repr(vars(gateway)), repr(vars(gateway.admin))):
        assert "secret" not in shown


def test_an_error_shows_no_password() -> None:
    with pytest.raises(SettingsError) as error:
        load({"OPENBAT_CLICKHOUSE_URL": "user:secret@host"})
    assert "secret" not in str(error.value)


def test_every_setting_has_a_name_of_its_own_that_a_shell_takes() -> None:
    for name in Settings.__struct_fields__:
        assert (PREFIX + name.upper()).replace("_", "").isalnum()
