-- What analysis found. A row is keyed by what was judged (of a conversation, its revision), what
-- was asked, and who answered in which version. Of rows with one key the newest run's is kept, of
-- one run the latest answer, in whichever order they arrive: that is what `rank` sorts by.

CREATE TABLE IF NOT EXISTS openbat.analysis_rows
(
    chatbot_id UUID,
    conversation_id UUID,
    message_id String COMMENT 'empty for a conversation as a whole',
    kind LowCardinality(String),
    analyzer LowCardinality(String),
    version LowCardinality(String),
    score Nullable(Float64) COMMENT '-1 to 1, of sentiments',
    label LowCardinality(String),
    labels Array(String) COMMENT 'topics or flags',
    reasoning String CODEC(ZSTD(1)),
    received_at DateTime64(6, 'UTC'),
    position UInt64,
    revision UInt64 COMMENT 'of the conversation that was judged, 0 of a message',
    analysed_at DateTime64(6, 'UTC'),
    run UInt64 COMMENT '0, or the number of a re-analysis',
    rank UInt128 MATERIALIZED
        bitShiftLeft(toUInt128(run), 64) + toUInt128(toUnixTimestamp64Micro(analysed_at))
)
ENGINE = ReplacingMergeTree(rank)
PARTITION BY toYYYYMM(received_at)
ORDER BY (chatbot_id, conversation_id, message_id, kind, analyzer, version, revision);

CREATE VIEW IF NOT EXISTS openbat.analyses AS
SELECT * FROM openbat.analysis_rows FINAL;

-- The result to use of each message or conversation and kind, whoever gave it. It needs no FINAL:
-- the row that comes first is one that a merge keeps.
CREATE VIEW IF NOT EXISTS openbat.latest_analyses AS
SELECT * FROM openbat.analysis_rows
ORDER BY
    chatbot_id, conversation_id, message_id, kind,
    revision DESC, rank DESC, analyzer, version
LIMIT 1 BY chatbot_id, conversation_id, message_id, kind;

CREATE VIEW IF NOT EXISTS openbat.message_sentiments AS
SELECT
    chatbot_id, conversation_id, message_id, label AS sentiment, score, reasoning,
    received_at, position, analyzer, version, analysed_at
FROM openbat.latest_analyses
WHERE kind = 'sentiment';

CREATE VIEW IF NOT EXISTS openbat.message_intents AS
SELECT
    chatbot_id, conversation_id, message_id, label AS intent, reasoning,
    received_at, position, analyzer, version, analysed_at
FROM openbat.latest_analyses
WHERE kind = 'intent';

CREATE VIEW IF NOT EXISTS openbat.message_topics AS
SELECT
    chatbot_id, conversation_id, message_id, topic, place, reasoning,
    received_at, position, analyzer, version, analysed_at
FROM openbat.latest_analyses
ARRAY JOIN labels AS topic, arrayEnumerate(labels) AS place
WHERE kind = 'topics';

CREATE VIEW IF NOT EXISTS openbat.message_flags AS
SELECT
    chatbot_id, conversation_id, message_id, flag, reasoning,
    received_at, position, analyzer, version, analysed_at
FROM openbat.latest_analyses
ARRAY JOIN labels AS flag
WHERE kind = 'flags';

CREATE VIEW IF NOT EXISTS openbat.behaviours AS
SELECT
    chatbot_id, conversation_id, message_id, label AS behaviour, reasoning,
    received_at, position, analyzer, version, analysed_at
FROM openbat.latest_analyses
WHERE kind = 'behaviour';

CREATE VIEW IF NOT EXISTS openbat.resolutions AS
SELECT
    chatbot_id, conversation_id, revision, label AS resolution, reasoning,
    received_at, position, analyzer, version, analysed_at
FROM openbat.latest_analyses
WHERE kind = 'resolution';
