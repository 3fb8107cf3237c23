"""From records of `analyses` to ClickHouse's rows. Pure."""

from schemas import topics
from schemas.analyses import Analysed, Analysis, analyses_codec
from schemas.dead_letters import Source
from schemas.records import encode
from sinks.rows import UUID, Rejected, Rows, values

ANALYSIS_TABLE = "openbat.analysis_rows"

ANALYSIS_COLUMNS = ("chatbot_id", "conversation_id", *Analysis.__struct_fields__)
"""A result's values are its row's, so its encoding is the row's."""


class AnalysisBatch:
    """Rows of several records, one for each result. Those of a record are counted from 0."""

    def __init__(self) -> None:
        self.analyses = Rows(ANALYSIS_TABLE, ANALYSIS_COLUMNS, _record)

    @property
    def tables(self) -> tuple[Rows[Analysed], ...]:
        return (self.analyses,)

    @property
    def rows(self) -> int:
        return len(self.analyses.encoded)

    def add(self, value: bytes, partition: int, offset: int) -> list[Rejected]:
        """Add the rows of one `analyses` record.

        Returns:
            Nothing: a record of `analyses` is decoded as a whole or not at all.

        Raises:
            UndecodableError: the record is in no format that this release reads.

        """
        row = 0
        for analysed in analyses_codec.decode(value):
            ids = UUID + analysed.chatbot_id + UUID + analysed.conversation_id
            first = Source(topics.ANALYSES, partition, offset, row)
            encoded = [ids + values(encode(result)) for result in analysed.results]
            self.analyses.add(first, analysed, encoded)
            row += len(encoded)
        return []


def _record(analysed: Analysed, number: int) -> bytes:
    """Return a record of one of the results."""
    kept = analysed.results[number : number + 1]
    return analyses_codec.encode([Analysed(analysed.chatbot_id, analysed.conversation_id, kept)])
