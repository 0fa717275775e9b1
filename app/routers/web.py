"""The web client: its page, its files, and the redirects that lead browsers to it.

The client is in `web/` and uses the public HTTP API only. All its files have one version, a hash of their content, in
their path. So modules import each other by relative paths, and caches keep each version for a year.
"""

import gzip
import mimetypes
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from pathlib import Path
from posixpath import dirname, normpath
from typing import Final

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from app.config import ConfigurationError, Settings
from app.routers.docs import ONE_YEAR_SECONDS

WEB_FOLDER: Final = Path(__file__).resolve().parent.parent.parent / "web"
PAGE: Final = "index.html"
MAIN: Final = "main.js"
_IMPORT: Final = re.compile(r"""^(?:import|export)\b[^;"'(]*["'](\.[^"']+)["'];""", re.MULTILINE)

# Trusted types: the browser itself refuses to make HTML of a string.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "manifest-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
# Pages to which mails lead. The API has other methods of these paths. The browser adds the fragment to the new address.
MAILED_PAGES: Final = ("password-reset", "email-verification")


@dataclass(frozen=True, slots=True)
class File:
    """A file of the client, as it is and compressed."""

    content: bytes
    compressed: bytes
    media_type: str


class WebClient:
    """The files of `web/`, read once.

    `state` is what the page needs to know before its first request; it becomes `data-` attributes of the page.
    Raises `ConfigurationError` if the folder is missing.
    """

    def __init__(self, state: Mapping[str, str], folder: Path = WEB_FOLDER) -> None:
        if not (folder / PAGE).is_file():
            raise ConfigurationError(f"{folder} has no {PAGE}; restore the folder, or set WEB_CLIENT_ENABLED=false")
        self.files = {path.relative_to(folder).as_posix(): _read(path) for path in sorted(folder.rglob("*.*"))}
        digest = sha256()
        for name, file in self.files.items():
            digest.update(name.encode() + b"\0" + file.content)
        self.version = digest.hexdigest()[:16]
        # The browser loads the modules of the first page in parallel, before it finds them in each other's imports.
        preloaded = sorted(self._imported_by(MAIN) - {MAIN})
        links = "\n".join(f'<link rel="modulepreload" href="$assets/{name}">' for name in preloaded)
        attributes = " ".join(f'data-{name}="{escape(value)}"' for name, value in state.items())
        page = self.files.pop(PAGE).content.decode()
        self.page = page.replace("$preload", links).replace("$state", attributes)

    def _imported_by(self, name: str) -> set[str]:
        """The module and all that it imports, directly or not, but what it imports later (`import()`)."""
        found, left = set(), [name]
        while left:
            found.add(current := left.pop())
            for target in _IMPORT.findall(self.files[current].content.decode()):
                path = normpath(f"{dirname(current)}/{target}".lstrip("/"))
                if path not in found:
                    left.append(path)
        return found

    async def show_page(self, request: Request) -> Response:
        """Answer the page. It is the same for every path: the client reads the address itself."""
        root_path = escape(request.scope["root_path"].rstrip("/"))
        html = self.page.replace("$assets", f"{root_path}/web/assets/{self.version}").replace("$root", root_path)
        response = _compressible(request, html.encode(), gzip.compress(html.encode(), 6, mtime=0), "text/html")
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Cache-Control"] = "no-cache"
        etag = f'"{sha256(html.encode()).hexdigest()[:16]}"'
        if request.headers.get("if-none-match") == etag:
            response = Response(status_code=304, headers=response.headers)
            del response.headers["Content-Length"]
        response.headers["ETag"] = etag
        return response

    async def show_file(self, request: Request) -> Response:
        """Answer a file.

        Caches must revalidate one of another version, such as that of a page loaded before a release.
        """
        file = self.files.get(request.path_params["name"])
        if file is None:
            raise HTTPException(404)
        response = _compressible(request, file.content, file.compressed, file.media_type)
        is_current = request.path_params["version"] == self.version
        response.headers["Cache-Control"] = (
            f"public, max-age={ONE_YEAR_SECONDS}, immutable" if is_current else "no-cache"
        )
        return response


class _NavigationRoute(Route):
    """A route for page loads of browsers, which ask for `text/html`.

    Every other request goes on to the API's routes.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        if match is Match.FULL and _wants_page(scope):
            return match, child_scope
        return Match.NONE, {}


def install(api: FastAPI, settings: Settings) -> None:
    """Add the routes of the client, before those of the API."""
    state = {
        "public-reads": str(settings.public_reads).lower(),
        "registration": settings.registration,
        "proof-of-work": str(settings.signup_proof_of_work).lower(),
    }
    client = WebClient(state)
    api.router.routes += [
        Route("/web/assets/{version}/{name:path}", client.show_file, methods=["GET"]),
        Route("/web/", client.show_page, methods=["GET"]),
        Route("/web", client.show_page, methods=["GET"]),
        Route("/web/{path:path}", client.show_page, methods=["GET"]),
        _NavigationRoute("/", _lead_to_client, methods=["GET"]),
        *(_NavigationRoute(f"/{page}", _lead_to_client, methods=["GET"]) for page in MAILED_PAGES),
    ]


async def _lead_to_client(request: Request) -> Response:
    root_path = request.scope["root_path"].rstrip("/")
    path = request.scope["path"].removeprefix(root_path)
    return RedirectResponse(f"{root_path}/web{path}", headers={"Vary": "Accept", "Cache-Control": "no-cache"})


def _wants_page(scope: Scope) -> bool:
    accept = Headers(scope=scope).get("accept", "")
    return "text/html" in accept and "json" not in accept


def _read(path: Path) -> File:
    content = path.read_bytes()
    media_type = mimetypes.guess_type(path.name)[0] or "text/plain"
    return File(content, gzip.compress(content, 9, mtime=0), media_type)


def _compressible(request: Request, content: bytes, compressed: bytes, media_type: str) -> Response:
    headers = {"Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        content = compressed
    return Response(content, headers=headers, media_type=media_type)
