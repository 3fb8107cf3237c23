"""The key of the chatbot `demo`, which a local stack keeps in a file."""

from pathlib import Path

from openbat.local import state
from schemas.chatbots import DEMO, Chatbot


def keep_demo_key(data_dir: Path, chatbot: Chatbot, key: str) -> None:
    """Keep a new key of `demo` where the running local stack finds it at its next start.

    Without it the next start would put the old key in force again. Does nothing for any other
    chatbot, or where no local stack runs in the directory.
    """
    running = state.read(data_dir)
    if running is not None and running.chatbot_id == chatbot.id and chatbot.name == DEMO:
        state.write_private(data_dir / "demo.key", key.encode() + b"\n")
