-- Rows may arrive more than once: a replay writes the same row again, and merges drop the older
-- one. The views hide what is not merged yet, so that nobody must remember FINAL.

CREATE DATABASE IF NOT EXISTS openbat;

CREATE TABLE IF NOT EXISTS openbat.message_rows
(
    chatbot_id UUID,
    conversation_id UUID,
    external_conversation_id String,
    message_id String,
    role LowCardinality(String),
    content String CODEC(ZSTD(1)),
    sent_at DateTime64(6, 'UTC'),
    received_at DateTime64(6, 'UTC'),
    position UInt64
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (chatbot_id, conversation_id, message_id);

CREATE TABLE IF NOT EXISTS openbat.conversation_rows
(
    chatbot_id UUID,
    conversation_id UUID,
    external_conversation_id String,
    user_id Nullable(String),
    user_name Nullable(String),
    user_email Nullable(String),
    user_plan LowCardinality(Nullable(String)),
    user_industry LowCardinality(Nullable(String)),
    user_created_at Nullable(DateTime64(6, 'UTC')),
    user_mrr Nullable(Float64),
    user_other String CODEC(ZSTD(1)) COMMENT 'unknown members, as JSON',
    organization_id Nullable(String),
    organization_name Nullable(String),
    organization_plan LowCardinality(Nullable(String)),
    organization_industry LowCardinality(Nullable(String)),
    organization_mrr Nullable(Float64),
    organization_other String CODEC(ZSTD(1)) COMMENT 'unknown members, as JSON',
    session_id Nullable(String),
    session_page_url Nullable(String),
    session_referrer Nullable(String),
    session_device LowCardinality(Nullable(String)),
    session_country LowCardinality(Nullable(String)),
    session_other String CODEC(ZSTD(1)) COMMENT 'unknown members, as JSON',
    custom String CODEC(ZSTD(1)) COMMENT 'custom fields, as JSON',
    message_count UInt64,
    first_message_at DateTime64(6, 'UTC'),
    last_message_at DateTime64(6, 'UTC'),
    created_at DateTime64(6, 'UTC'),
    updated_at DateTime64(6, 'UTC'),
    revision UInt64
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(created_at)
ORDER BY (chatbot_id, conversation_id);

CREATE VIEW IF NOT EXISTS openbat.messages AS
SELECT * FROM openbat.message_rows FINAL;

CREATE VIEW IF NOT EXISTS openbat.conversations AS
SELECT * FROM openbat.conversation_rows FINAL;
