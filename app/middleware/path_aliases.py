"""Aliases of paths: `/posts/` and `/v1/posts` are served like `/posts`."""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import NotFound
from app.middleware.problem_details import refusal

# Control characters of ASCII and Latin-1. A route's pattern ends in `$`, which matches before a final line break.
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")

VERSION_PREFIX = "/v1"


class PathAliases:
    """Serve every path also with a trailing slash and under `/v1`, without a redirect.

    `/v1` becomes part of the root path, so that links in the response stay under it. So does `root_path`, the prefix
    under which a proxy serves the API. The proxy may remove the prefix from the path or not. A path with control
    characters (`/posts%0a`) is 404.
    """

    def __init__(self, app: ASGIApp, *, root_path: str = "") -> None:
        self.app = app
        self.root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"}:
            root, path = scope.get("root_path", ""), scope["path"]
            if not path.isprintable() and CONTROLS.search(path) is not None:
                await refusal(scope, NotFound())(scope, receive, send)
                return
            if self.root_path:
                root = self.root_path
                path = path if path == root or path.startswith(root + "/") else root + path
            prefix = root + VERSION_PREFIX
            if path == prefix or path.startswith(prefix + "/"):
                root = prefix
            if path.endswith("/") and path != root + "/":
                path = path.removesuffix("/")
            elif path == root:
                path = root + "/"
            scope.update(root_path=root, path=path)
        await self.app(scope, receive, send)
