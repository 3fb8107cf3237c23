"""A request's headers, looked up by name: gone through once, not at every look."""

from starlette.requests import Request


class Head:
    """The headers of one request; names are in lower case, as ASGI gives them."""

    __slots__ = ("_all", "_first")

    def __init__(self, request: Request) -> None:
        self._all: list[tuple[bytes, bytes]] = request.scope["headers"]
        self._first = dict(reversed(self._all))

    def get(self, name: bytes) -> str | None:
        """Return the first header of this name, None where there is none."""
        value = self._first.get(name)
        return None if value is None else value.decode("latin-1")

    def every(self, name: bytes) -> list[str]:
        """Return all headers of this name, in order."""
        if name not in self._first:
            return []
        return [value.decode("latin-1") for found, value in self._all if found == name]
