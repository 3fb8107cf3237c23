"""The key of the chatbot `demo`, which a local stack keeps in a file."""

from pathlib import Path

from openbat.local import state
from schemas.chatbots import DEMO, Chatbot


def keep_demo_key(data_dir: Path, chatbot: Chatbot, key: str, *, found_there: bool = False) -> None:
    """Keep a new key of `demo` where the running local stack finds it at its next start.

    Without it the next start would put the old key in force again. Does nothing for any other
    chatbot, or where no local stack runs in the directory. `found_there` says that the chatbot was
    looked up in that stack's registry, as commands do: since a restore it may have another id.
    """
    running = state.read(data_dir)
    if running is None or chatbot.name != DEMO:
        return
    if found_there or running.chatbot_id == chatbot.id:
        state.write_private(data_dir / "demo.key", key.encode() + b"\n")
