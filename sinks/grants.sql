-- What each kind of user may do; each role is for users that an administrator makes. Every
-- statement may run again, and does so at every `openbat migrate`.

-- For the workers: add rows, and nothing else. An INSERT may also see the names of its columns.
CREATE ROLE IF NOT EXISTS openbat_writer;
GRANT INSERT ON openbat.message_rows TO openbat_writer;
GRANT INSERT ON openbat.conversation_rows TO openbat_writer;
GRANT INSERT ON openbat.analysis_rows TO openbat_writer;

-- For analysts: read the views, which read the tables in the name of whoever asks.
CREATE ROLE IF NOT EXISTS openbat_reader;
GRANT SELECT ON openbat.messages TO openbat_reader;
GRANT SELECT ON openbat.conversations TO openbat_reader;
GRANT SELECT ON openbat.analyses TO openbat_reader;
GRANT SELECT ON openbat.latest_analyses TO openbat_reader;
GRANT SELECT ON openbat.message_sentiments TO openbat_reader;
GRANT SELECT ON openbat.message_intents TO openbat_reader;
GRANT SELECT ON openbat.message_topics TO openbat_reader;
GRANT SELECT ON openbat.message_flags TO openbat_reader;
GRANT SELECT ON openbat.behaviours TO openbat_reader;
GRANT SELECT ON openbat.resolutions TO openbat_reader;
GRANT SELECT ON openbat.activity TO openbat_reader;
GRANT SELECT ON openbat.messages_hourly TO openbat_reader;
GRANT SELECT ON openbat.messages_daily TO openbat_reader;
GRANT SELECT ON openbat.conversations_hourly TO openbat_reader;
GRANT SELECT ON openbat.conversations_daily TO openbat_reader;
GRANT SELECT ON openbat.users_hourly TO openbat_reader;
GRANT SELECT ON openbat.users_daily TO openbat_reader;
GRANT SELECT ON openbat.activity_rows TO openbat_reader;
GRANT SELECT ON openbat.message_rows TO openbat_reader;
GRANT SELECT ON openbat.conversation_rows TO openbat_reader;
GRANT SELECT ON openbat.analysis_rows TO openbat_reader;
