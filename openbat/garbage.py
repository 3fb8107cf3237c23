"""How often garbage is collected."""

import gc

THRESHOLD = 200_000
"""Objects that were made and did not go, after which cycles among them are looked for. By default
that is 700, fewer than what 25 captures make that wait for the log."""


def collect_rarely() -> None:
    """Look for cycles rarely, and never among what is there already, such as modules.

    What is made for a capture holds no cycles, and goes with the last reference to it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(THRESHOLD)
