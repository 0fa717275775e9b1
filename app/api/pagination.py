"""Pages over HTTP: the parameters in a query string, and the `Link` header that carries cursors."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import parse_qsl, urlencode

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from app.api.conditional import respond
from app.services.feed import PageResponse

# `components.schemas` of the OpenAPI document.
SCHEMA_REFERENCE = "#/components/schemas/{model}"
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


def respond_with_page(request: Request, reading: PageResponse, linked: str) -> Response:
    """200 with a bare array, or 304 where the client has it; `linked` are the parameters that links repeat."""
    link = link_header(linked, next=reading.page.next_cursor, prev=reading.page.previous_cursor)
    links = () if link is None else ((b"link", link.encode()),)
    return respond(request, reading.etag, lambda: reading.json_array, *links)


# Common proxies read an answer's head into one buffer of 4 KB, and answer 502 where it does not fit.
MAX_LINK_BYTES = 2048


def link_header(parameters: str, *, next: str | None = None, prev: str | None = None) -> str | None:  # noqa: A002
    """`Link` (RFC 8288) to the pages with these cursors; None where there is none.

    `parameters` are those of the list, URL-encoded. A reference of a query alone resolves against the address of the
    request, whatever prefixes proxies put before its path. Where both do not fit into `MAX_LINK_BYTES`, `prev` is left
    out.
    """
    links = [
        f'<?{parameters}{"&" if parameters else ""}cursor={cursor}>; rel="{relation}"'
        for relation, cursor in (("next", next), ("prev", prev))
        if cursor is not None
    ]
    header = ", ".join(links)
    return (header if len(header) <= MAX_LINK_BYTES else links[0]) or None
