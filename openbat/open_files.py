"""How many files, connections among them, this process may have open."""

import resource

ENOUGH = 65_536
"""Where there is no hard limit: macOS takes no endless one."""


def raise_limit() -> int:
    """Raise the soft limit to the hard one; return the limit that holds then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return ENOUGH if soft == resource.RLIM_INFINITY else soft
