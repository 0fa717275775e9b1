"""Pagination over HTTP: query parameters, and the `Link` header with cursors."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Generic, NamedTuple, Protocol, TypeVar
from urllib.parse import parse_qsl, urlencode

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from app.api.conditional import respond
from app.schemas.page import KeysetPage
from app.services.feed import PageResponse

# `components.schemas` of the OpenAPI document.
SCHEMA_REFERENCE = "#/components/schemas/{model}"
# Cache of parsed queries: 4,096 of at most 256 bytes. With its parameters each takes at most 2 KB, so all take 8 MB.
MAX_REMEMBERED_QUERIES = 4096
MAX_REMEMBERED_QUERY_BYTES = 256
# The cursor in a link replaces these parameters.
_NOT_IN_LINKS = {"cursor", "skip", "search"}

Parameters = TypeVar("Parameters", bound=BaseModel)


class Query(NamedTuple, Generic[Parameters]):
    """The parameters of a query string, and those repeated in links, URL-encoded."""

    parameters: Parameters
    linked: str


def read_query(model: type[Parameters], query: bytes) -> Query[Parameters]:
    """Return the parameters of a query string, as FastAPI would read them.

    The last one of a repeated name counts. FastAPI itself determines for each request which fields of the model are
    lists. That takes longer than everything else in the request of a page. Many requests have the same query, so short
    queries are cached. Raises `RequestValidationError`.
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
    """URL-encode the parameters for links to other pages, without those that are None."""
    return urlencode(
        {
            name: str(value).lower() if isinstance(value, bool) else value
            for name, value in parameters.items()
            if value is not None
        }
    )


def query_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    """Return the model's fields as OpenAPI parameters, for routes with `read_query`."""
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


def respond_with_page(request: Request, result: PageResponse, linked: str) -> Response:
    """Respond with a bare array, or with 304 if the client has it.

    `linked` are the parameters for the links to other pages.
    """
    link = link_header(linked, next=result.page.next_cursor, prev=result.page.previous_cursor)
    links = () if link is None else ((b"link", link.encode()),)
    return respond(request, result.etag, lambda: result.json_array, *links)


class HasId(Protocol):
    """A row of a list sorted by id."""

    id: Any


AnyRow = TypeVar("AnyRow", bound=HasId)


def cut_and_link(response: Response, page: KeysetPage, rows: Sequence[AnyRow], **repeated: object) -> list[AnyRow]:
    """Return the rows without the one past the limit.

    If there was one, set `Link` to the next page. `repeated` are parameters of the request that the link repeats,
    beside `limit`.
    """
    shown = [*rows[: page.limit]]
    if len(rows) > page.limit:
        following = page.cursor_after(shown[-1].id, getattr(shown[-1], "listed_at", None))
        response.headers["Link"] = link_header(linked({"limit": page.limit, **repeated}), next=following) or ""
    return shown


# Common proxies read the head of a response into one buffer of 4 KB, and respond with 502 if it does not fit.
MAX_LINK_BYTES = 2048


def link_header(parameters: str, *, next: str | None = None, prev: str | None = None) -> str | None:  # noqa: A002
    """Return the `Link` header (RFC 8288) for these cursors; None without cursors.

    `parameters` are those of the list, URL-encoded. A reference that consists of a query resolves against the address
    of the request, so it works with any prefix of a proxy. If both links do not fit into `MAX_LINK_BYTES`, `prev` is
    left out.
    """
    links = [
        f'<?{parameters}{"&" if parameters else ""}cursor={cursor}>; rel="{relation}"'
        for relation, cursor in (("next", next), ("prev", prev))
        if cursor is not None
    ]
    header = ", ".join(links)
    return (header if len(header) <= MAX_LINK_BYTES else links[0]) or None
