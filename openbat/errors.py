"""What a person is told of an error: one sentence that says what to do next."""

from aiokafka import errors as kafka
from clickhouse_connect.driver.exceptions import ClickHouseError

from openbat.chatbots import ChatbotError
from openbat.clickhouse import ClickHouseUnreachableError, no_answer
from openbat.command import UnansweredError
from openbat.connection import UnreachableError
from openbat.dead_letters.listed import DeadLettersError
from openbat.kafka import TopicsError
from openbat.settings import SettingsError

_REFUSED = (
    kafka.TopicAuthorizationFailedError,
    kafka.GroupAuthorizationFailedError,
    kafka.ClusterAuthorizationFailedError,
    kafka.TransactionalIdAuthorizationFailed,
)
_LATE = (kafka.KafkaTimeoutError, kafka.RequestTimedOutError, kafka.NodeNotReadyError)

NO_TABLE = frozenset({60, 81})
_DENIED = 497
"""ClickHouse's error codes: unknown table, unknown database; access denied."""


def sentence_of(error: BaseException) -> str | None:
    """Return what to tell a person, None for an error that is a bug of ours."""
    if isinstance(error, _own()):
        return str(error)
    if isinstance(error, kafka.KafkaError):
        return _of_kafka(error)
    if isinstance(error, ClickHouseError):
        return _of_clickhouse(error)
    if isinstance(error, OSError) and error.filename is not None:
        return (
            f"{error.filename}: {error.strerror}; see who may write there, and how full it is "
            "(OPENBAT_DATA_DIR names where openbat keeps its files)"
        )
    return None


def _own() -> tuple[type[Exception], ...]:
    """Return our own errors, whose text is such a sentence already."""
    from openbat.export import ExportError
    from openbat.importer import ImportStoppedError
    from openbat.local.jars import JarsError
    from openbat.local.java import KafkaSetupError
    from openbat.local.stack import LocalError
    from openbat.local.supervisor import StartError
    from openbat.reanalyze import ReanalysisError
    from sinks.migrate import SchemaError
    from sinks.reader import ReaderError

    return (
        SettingsError, UnreachableError, TopicsError, ChatbotError, DeadLettersError,
        ClickHouseUnreachableError, ImportStoppedError, JarsError, KafkaSetupError, LocalError,
        StartError, ReanalysisError, ExportError, ReaderError, SchemaError, UnansweredError,
    )  # fmt: skip


def _of_kafka(error: kafka.KafkaError) -> str:
    if isinstance(error, kafka.UnknownTopicOrPartitionError):
        return "the topics are not there yet: run `openbat migrate`"
    if isinstance(error, _REFUSED):
        return (
            f"Kafka does not allow it ({_named(error)}): give the user of OPENBAT_KAFKA_USERNAME "
            "the right, or set another one"
        )
    if isinstance(error, _LATE):
        return (
            f"Kafka does not answer in time ({_named(error)}): look at its brokers, then run the "
            "command again"
        )
    return f"Kafka answers with an error ({_named(error)}): run the command again once it is mended"


def _named(error: kafka.KafkaError) -> str:
    text = str(error)
    return text if type(error).__name__ in text else f"{type(error).__name__}: {text}".rstrip(": ")


def _of_clickhouse(error: ClickHouseError) -> str:
    code = getattr(error, "code", None)
    if code in NO_TABLE:
        return "ClickHouse has not all tables and views yet: run `openbat migrate`"
    why = no_answer(error)
    if why is not None:
        return f"ClickHouse does not answer: {why}; look at it, and at OPENBAT_CLICKHOUSE_URL"
    said = (str(error).splitlines() or [type(error).__name__])[0]
    if code == _DENIED:
        return (
            f"ClickHouse does not allow it ({said}): let OPENBAT_CLICKHOUSE_URL name a user with "
            "the role openbat_reader, or for `openbat migrate` one who may make tables"
        )
    return f"ClickHouse answers with an error: {said}; run the command again once it is mended"
