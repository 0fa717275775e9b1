"""Pages over HTTP: cursors in Link headers, ETags, 304; and for single posts If-Match."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import parse_qsl, urlencode

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from app import pagination
from app.hot import Json
from app.middleware.request_context import header
from app.services.feed import Reading

# The answer is the caller's own, and may be kept, but asked for again each time.
PRIVATE = ((b"cache-control", b"private, no-cache"), (b"vary", b"Authorization, Cookie, X-API-Key, Accept"))
# `components.schemas` of the OpenAPI document.
SCHEMA_REFERENCE = "#/components/schemas/{model}"
LARGEST_VERSION = 2**31 - 1
# Parsed queries are remembered: 4,096 of at most 256 bytes, with their parameters at most 2 KB each, so 8 MB.
MAX_REMEMBERED_QUERIES = 4096
MAX_REMEMBERED_QUERY_BYTES = 256
# Of these a cursor knows better.
_NOT_IN_LINKS = {"cursor", "skip", "search"}

Parameters = TypeVar("Parameters", bound=BaseModel)


class Query(NamedTuple, Generic[Parameters]):
    """The parameters in a query string, and those of them that links to other pages repeat, URL-encoded."""

    parameters: Parameters
    linked: str


def read_query(model: type[Parameters], query: bytes) -> Query[Parameters]:
    """The parameters in a query string, as FastAPI would read them; of a name that is repeated the last one counts.

    FastAPI works out anew for each request which fields of the model are lists, which takes longer than all else that
    is done for a page. Many ask for the same page, so the newest short queries are remembered.
    Raises `RequestValidationError`.
    """
    return (_remembered_query if len(query) <= MAX_REMEMBERED_QUERY_BYTES else _parsed_query)(model, query)


def _parsed_query(model: type[Parameters], query: bytes) -> Query[Parameters]:
    try:
        parameters = model.model_validate(dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)))
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise RequestValidationError([{**problem, "loc": ("query", *problem["loc"])} for problem in problems]) from None
    given = parameters.model_dump(mode="json", exclude_unset=True, exclude_none=True, exclude=_NOT_IN_LINKS)
    return Query(parameters, linked(given))


_remembered_query = lru_cache(maxsize=MAX_REMEMBERED_QUERIES)(_parsed_query)


def linked(parameters: Mapping[str, object]) -> str:
    """The parameters that links to other pages repeat, URL-encoded; those that are None are left out."""
    return urlencode(
        {
            name: str(value).lower() if isinstance(value, bool) else value
            for name, value in parameters.items()
            if value is not None
        }
    )


def query_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    """The model's fields as OpenAPI's parameters, for a route that reads them by `read_query`."""
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "schema": {key: value for key, value in schema.items() if key != "description"},
            **({"description": schema["description"]} if "description" in schema else {}),
        }
        for name, schema in model.model_json_schema(ref_template=SCHEMA_REFERENCE)["properties"].items()
    ]


def relative_location(request: Request, path: str) -> str:
    """`Location` of a path of this API, relative to the address of the request.

    So it resolves behind whatever prefix a proxy took away, and below `/v1` where the request came in there.
    """
    asked: str = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    has_slash: bool = (request.scope.get("raw_path") or b"").endswith(b"/")
    return "../" * (asked.count("/") - 1 + has_slash) + path.removeprefix("/")


def respond_with_page(request: Request, reading: Reading, linked: str) -> Response:
    """200 with a bare array, or 304 where the client has it; `linked` are the parameters that links repeat."""
    link = pagination.link_header(linked, next=reading.page.next_cursor, prev=reading.page.previous_cursor)
    links = () if link is None else ((b"link", link.encode()),)
    return _respond(request, reading.etag, lambda: reading.json_array, *links)


def respond_with_post(request: Request, reading: Reading) -> Response:
    """200 with the one post, or 304 where the client has it."""
    return _respond(request, f"{reading.page.rows[0].version}-{reading.etag}", lambda: reading.json)


def _respond(request: Request, etag: str, body: Callable[[], bytes], *more: tuple[bytes, bytes]) -> Response:
    headers = [*PRIVATE, (b"etag", b'"%s"' % etag.encode()), *more]
    if not _has(request, etag):
        return Json(body(), headers=headers)
    response = Response(status_code=304)
    response.raw_headers += headers
    return response


def _has(request: Request, etag: str) -> bool:
    wanted = header(request.scope, b"if-none-match").decode("latin-1")
    return wanted.strip() == "*" or etag in _ETAG.findall(wanted)


# Proxies that compress an answer mark its ETag as weak, by `W/`.
_ETAG = re.compile(r'(?:W/)?"([^"]*)"')


def expected_versions(if_match: str | None) -> frozenset[int] | None:
    """The versions that `If-Match` allows; None: any. An ETag of a post begins with its version.

    The rest of the ETag, which changes with votes, is left aside: a vote must not stop an edit. Weak ETags count, too:
    RFC 9110 (13.1.1) excludes them because their bytes may differ, and here versions are compared, not bytes.
    Empty where no version could fit: then the post is missing, somebody else's, or changed, in this order.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    return frozenset(
        int(version)
        for tag in _ETAG.findall(if_match)
        if re.fullmatch(r"[0-9]{1,10}", version := tag.partition("-")[0]) and int(version) <= LARGEST_VERSION
    )
