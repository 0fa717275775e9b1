"""Interactive documentation (Swagger UI and ReDoc) and its static files.

FastAPI's own pages load their scripts from a CDN and start them with an inline script. These pages load nothing from
another host, and run under a Content-Security-Policy without inline scripts. Each page is a few lines of HTML, and the
rest is in `app/static`. `app/static/vendored.toml` lists the third-party files there, with their versions.
"""

import mimetypes
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC_FOLDER: Final = Path(__file__).resolve().parent.parent / "static"
ONE_YEAR_SECONDS: Final = 365 * 24 * 60 * 60

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'; style-src 'self'"
)
SWAGGER_UI_POLICY: Final = _POLICY
# ReDoc creates its search worker from a string, and adds two style elements: an empty one, which it fills through the
# CSSOM, and the one of its scroll bar. The hashes allow only these two. A new version of ReDoc may need others.
REDOC_POLICY: Final = _POLICY + (
    " 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' 'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='; "
    "worker-src blob:"
)

# Python reads media types from the system. A wrong one (the Windows registry may have text/plain) together with nosniff
# would keep the browser from using the file.
mimetypes.add_type("text/javascript", ".js")
mimetypes.add_type("text/css", ".css")
mimetypes.add_type("image/svg+xml", ".svg")

_VERSIONS: Final = {
    path.relative_to(STATIC_FOLDER).as_posix(): sha256(path.read_bytes()).hexdigest()[:16]
    for path in STATIC_FOLDER.rglob("*")
    if path.is_file()
}


class Assets(StaticFiles):
    """The files of `app/static`.

    Caches may store a file for a year if the URL has its version. The version (`?v=…`) is a hash of the content. With
    another version or none, caches must revalidate the file. Otherwise, during a deployment, caches could store an old
    process's file under the new file's URL.
    """

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        current = scope["query_string"] == f"v={_VERSIONS.get(path)}".encode()
        response.headers["Cache-Control"] = f"public, max-age={ONE_YEAR_SECONDS}, immutable" if current else "no-cache"
        return response


router = APIRouter(include_in_schema=False)
router.mount("/static", Assets(directory=STATIC_FOLDER))


@router.api_route("/docs", methods=["GET", "HEAD"])
def show_swagger_ui(request: Request) -> HTMLResponse:
    return _page(
        request,
        element="swagger-ui",
        stylesheets=["page.css", "swagger-ui/swagger-ui.css"],
        scripts=["swagger-ui/swagger-ui-bundle.js", "swagger-ui.js"],
        policy=SWAGGER_UI_POLICY,
    )


@router.api_route("/redoc", methods=["GET", "HEAD"])
def show_redoc(request: Request) -> HTMLResponse:
    return _page(
        request,
        element="redoc",
        stylesheets=["page.css"],
        scripts=["redoc/redoc.standalone.js", "redoc.js"],
        policy=REDOC_POLICY,
    )


def _page(request: Request, *, element: str, stylesheets: list[str], scripts: list[str], policy: str) -> HTMLResponse:
    """Return a page with an empty `element`, which the last of the `scripts` fills.

    Every URL has the path prefix of the request.
    """
    root_path = escape(request.scope.get("root_path", "").rstrip("/"))

    def address(name: str) -> str:
        return f"{root_path}/static/{name}?v={_VERSIONS[name]}"

    links = "".join(f'<link rel="stylesheet" href="{address(name)}">\n' for name in stylesheets)
    tags = "".join(f'<script src="{address(name)}"></script>\n' for name in scripts)
    html = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(request.app.title)}</title>
<link rel="icon" type="image/svg+xml" href="{address("favicon.svg")}">
{links}</head>
<body>
<div id="{element}" data-openapi-url="{root_path}/openapi.json"></div>
{tags}</body>
</html>
"""
    return HTMLResponse(html, headers={"Content-Security-Policy": policy, "Cache-Control": "no-cache"})
