"""How often garbage is collected: as rarely as in the roles that the peers are compared with."""

import gc

THRESHOLD = 200_000


def collect_rarely() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(THRESHOLD)
