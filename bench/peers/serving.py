"""How an HTTP peer is served: as ours is, where that is to be chosen."""

import os
from typing import Any

import uvicorn
from garbage import collect_rarely


def serve(app: Any, lifespan: str) -> None:
    collect_rarely()
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan=lifespan,
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=2048,
    )
