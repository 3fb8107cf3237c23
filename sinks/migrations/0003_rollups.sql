-- What was said in each hour (of UTC, by received_at) and conversation. A row holds a hash of the id
-- of each of its messages, and merges unite them: a row that is inserted again adds nothing, so
-- counts stay exact under replays, where a sum would grow. ADR 23 has the measurements.

CREATE TABLE IF NOT EXISTS openbat.activity_rows
(
    chatbot_id UUID,
    hour DateTime('UTC'),
    conversation_id UUID,
    role LowCardinality(String),
    message_hashes SimpleAggregateFunction(groupUniqArrayArray, Array(UInt64))
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (chatbot_id, hour, conversation_id, role);

CREATE MATERIALIZED VIEW IF NOT EXISTS openbat.activity_feed TO openbat.activity_rows AS
SELECT
    chatbot_id, toStartOfHour(received_at, 'UTC') AS hour, conversation_id, role,
    [sipHash64(message_id)] AS message_hashes
FROM openbat.message_rows;

-- What was there before the view above. It may run again at any time, also to mend.
INSERT INTO openbat.activity_rows
SELECT
    chatbot_id, toStartOfHour(received_at, 'UTC') AS hour, conversation_id, role,
    [sipHash64(message_id)] AS message_hashes
FROM openbat.message_rows
SETTINGS max_partitions_per_insert_block = 0;

CREATE VIEW IF NOT EXISTS openbat.activity AS
SELECT chatbot_id, hour, conversation_id, role, length(message_hashes) AS messages
FROM openbat.activity_rows FINAL;

CREATE VIEW IF NOT EXISTS openbat.messages_hourly AS
SELECT chatbot_id, hour, role, sum(messages) AS messages
FROM openbat.activity
GROUP BY chatbot_id, hour, role;

CREATE VIEW IF NOT EXISTS openbat.messages_daily AS
SELECT chatbot_id, toDate(hour) AS day, role, sum(messages) AS messages
FROM openbat.activity
GROUP BY chatbot_id, day, role;

-- A conversation counts once in each period in which it had a message, and as new in the one in
-- which its first capture was received. Rows not merged yet don't matter: it is counted by its id.
CREATE VIEW IF NOT EXISTS openbat.conversations_hourly AS
SELECT
    chatbot_id, hour,
    uniqExactIf(conversation_id, NOT is_new) AS active, uniqExactIf(conversation_id, is_new) AS new
FROM
(
    SELECT chatbot_id, hour, conversation_id, false AS is_new FROM openbat.activity_rows
    UNION ALL
    SELECT chatbot_id, toStartOfHour(created_at, 'UTC') AS hour, conversation_id, true AS is_new
    FROM openbat.conversation_rows
)
GROUP BY chatbot_id, hour;

CREATE VIEW IF NOT EXISTS openbat.conversations_daily AS
SELECT
    chatbot_id, day,
    uniqExactIf(conversation_id, NOT is_new) AS active, uniqExactIf(conversation_id, is_new) AS new
FROM
(
    SELECT chatbot_id, toDate(hour) AS day, conversation_id, false AS is_new
    FROM openbat.activity_rows
    UNION ALL
    SELECT chatbot_id, toDate(created_at, 'UTC') AS day, conversation_id, true AS is_new
    FROM openbat.conversation_rows
)
GROUP BY chatbot_id, day;

-- A conversation's user is the one that it has now, for all of its messages.
CREATE VIEW IF NOT EXISTS openbat.users_hourly AS
SELECT a.chatbot_id AS chatbot_id, a.hour AS hour, uniqExact(c.user_id) AS users
FROM openbat.activity_rows AS a
INNER JOIN openbat.conversations AS c USING (chatbot_id, conversation_id)
WHERE c.user_id IS NOT NULL
GROUP BY chatbot_id, hour;

CREATE VIEW IF NOT EXISTS openbat.users_daily AS
SELECT a.chatbot_id AS chatbot_id, toDate(a.hour) AS day, uniqExact(c.user_id) AS users
FROM openbat.activity_rows AS a
INNER JOIN openbat.conversations AS c USING (chatbot_id, conversation_id)
WHERE c.user_id IS NOT NULL
GROUP BY chatbot_id, day;
