"""Where the messages end up: ClickHouse."""
