"""One route, several spellings of its path: `/posts`, `/posts/`, `/v1/posts`."""

from starlette.types import ASGIApp, Receive, Scope, Send

VERSION_PREFIX = "/v1"


class Paths:
    """Serves every path also with a trailing slash, without a redirect, and below `/v1`.

    `/v1` becomes part of the root path, so that links in the answer stay below it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            root, path = scope.get("root_path", ""), scope["path"]
            prefix = root + VERSION_PREFIX
            if path == prefix or path.startswith(prefix + "/"):
                root = prefix
            if path.endswith("/") and path != root + "/":
                path = path.removesuffix("/")
            elif path == root:
                path = root + "/"
            scope.update(root_path=root, path=path)
        await self.app(scope, receive, send)
