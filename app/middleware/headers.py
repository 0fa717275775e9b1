"""Access to the headers of an ASGI scope."""

from starlette.types import Scope


def header(scope: Scope, name: bytes) -> bytes:
    """The value of the request's first header of this name; empty if there is none."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return b""
