"""From records of `analyses` to ClickHouse's rows. Pure."""

from operator import attrgetter

from msgspec.structs import replace

from schemas import topics
from schemas.analyses import Analysed, Analysis, Finding, analyses_codec
from schemas.dead_letters import Source
from schemas.records import encode
from sinks.rows import UUID, Rejected, Rows, values

ANALYSIS_TABLE = "openbat.analysis_rows"

_SHARED = [name for name in Analysis.__struct_fields__ if name != "findings"]

ANALYSIS_COLUMNS = ("chatbot_id", "conversation_id", *_SHARED, *Finding.__struct_fields__)
"""A finding's values are its row's, after those that an analysis has once for all its findings."""

_shared = attrgetter(*_SHARED)


class AnalysisBatch:
    """Rows of several records, one for each finding. Those of a record are counted from 0."""

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
            encoded: list[bytes] = []
            for analysis in analysed.results:
                shared = ids + values(encode(_shared(analysis)))
                encoded += [shared + values(encode(each)) for each in analysis.findings]
            self.analyses.add(first, analysed, encoded)
            row += len(encoded)
        return []


def _record(analysed: Analysed, number: int) -> bytes:
    """Return a record of one of the findings."""
    each_alone = [
        replace(analysis, findings=(finding,))
        for analysis in analysed.results
        for finding in analysis.findings
    ]
    return analyses_codec.encode([replace(analysed, results=[each_alone[number]])])
