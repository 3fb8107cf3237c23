"""Inserts ready-made columns with clickhouse-connect; prints the processor seconds that it took.

`python insert.py URL FILE`, the file as `bench.clickhouse` writes it.
"""

import sys
import time
from pathlib import Path

import clickhouse_connect
import msgspec
from garbage import collect_rarely


def main(url: str, path: str) -> None:
    inserts = msgspec.msgpack.decode(Path(path).read_bytes())
    collect_rarely()
    client = clickhouse_connect.get_client(dsn=url, interface="http", autogenerate_session_id=False)
    for _ in range(2):  # the first time the client loads what it needs
        started = time.process_time()
        for table, names, columns, settings in inserts:
            client.insert(
                table, columns, column_names=names, column_oriented=True, settings=settings
            )
    sys.stdout.write(f"{time.process_time() - started}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
