"""Tells who started this process that it is ready: systemd's sd_notify protocol.

See sd_notify(3). The local stack listens for it too.
"""

import os
import socket


def ready() -> None:
    """Say so, where somebody listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"READY=1", address.replace("@", "\0", 1))
