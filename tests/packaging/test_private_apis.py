"""docs/architecture.md lists every undocumented part of a dependency that app/ uses, and each works as it is used."""

import ast
import asyncio
import inspect
import re
import zlib
from collections.abc import AsyncIterator, Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import psycopg2
import pytest
from fastapi import APIRouter, Depends, FastAPI
from PIL import Image
from prometheus_client import CollectorRegistry, Counter, values
from starlette.testclient import TestClient
from uvicorn import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from uvicorn.supervisors import Multiprocess

from app.api.route import Route, required_credential
from app.routers import ROUTERS
from app.server import http_protocol, websocket_protocol
from tests.conftest import ROOT
from tests.pictures import png

# Modules that their packages' documentation does not describe, although their names have no underscore.
UNDOCUMENTED = re.compile(r"(uvicorn\.(protocols|supervisors)|fastapi\.dependencies|prometheus_client\.values)\b")
# Keys of the ASGI scope that belong to FastAPI.
SCOPE_KEYS = re.compile(r"fastapi_\w+")
# Documented with their underscore, so that they differ from the names of fields.
OF_NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}


class Use(NamedTuple):
    """An undocumented part, and the file below app/ that uses it."""

    file: str
    part: str


@cache
def trees() -> dict[str, ast.Module]:
    return {str(path.relative_to(ROOT / "app")): ast.parse(path.read_text()) for path in (ROOT / "app").rglob("*.py")}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def names_defined_in(tree: ast.Module) -> set[str]:
    """Every name that a module defines: functions, classes, variables, attributes of `self`."""
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                names.add(name)
    return names


def uses_in(tree: ast.Module) -> Iterator[str]:
    """Yield the undocumented parts of dependencies that a module uses."""
    imported: dict[str, str] = {}
    own = names_defined_in(tree) | OF_NAMED_TUPLES
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module), names=names) if module.partition(".")[0] != "app":
                imported |= {each.asname or each.name: f"{module}.{each.name}" for each in names}
                paths = [module] if is_undocumented(module) else [f"{module}.{each.name}" for each in names]
                yield from filter(is_undocumented, paths)
            case ast.Import(names=names):
                imported |= {each.asname or each.name: each.name for each in names}
                yield from filter(is_undocumented, (each.name for each in names))
            case ast.Attribute(attr=name) if is_private(name) and name not in own:
                yield name
            case ast.Call(func=ast.Name(id="getattr" | "setattr" | "hasattr"), args=[_, ast.Constant(str(name)), *_]):
                if is_private(name) and name not in own:
                    yield name
            case ast.Constant(str(key)) if SCOPE_KEYS.fullmatch(key):
                yield key
    for node in ast.walk(tree):
        match node:  # Code of a dependency is replaced.
            case ast.Attribute(value=ast.Name(id=owner), attr=name, ctx=ast.Store()) if owner in imported:
                yield f"{imported[owner]}.{name}"


def is_undocumented(path: str) -> bool:
    return UNDOCUMENTED.match(path) is not None or any(map(is_private, path.split(".")))


def listed() -> set[Use]:
    """The rows of the table in docs/architecture.md."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    _, _, section = page.partition("## Undocumented parts of dependencies\n")
    rows = re.findall(r"^\| `([\w/]+\.py)` \| (.+?) \| .+ \|$", section.partition("\n## ")[0], re.MULTILINE)
    return {Use(file, part) for file, parts in rows for part in re.findall(r"`([\w.]+)`", parts)}


def test_the_table_lists_exactly_the_undocumented_parts_that_are_used() -> None:
    assert listed() == {Use(file, part) for file, tree in trees().items() for part in uses_in(tree)}


@pytest.mark.parametrize(
    ("code", "part"),
    [
        ("from uvicorn._types import Scope", "uvicorn._types"),
        ("import uvicorn._types", "uvicorn._types"),
        ("from fastapi import _compat", "fastapi._compat"),
        ("from prometheus_client import values", "prometheus_client.values"),
        ("self.x = request._body", "_body"),
        ("getattr(request, '_body', None)", "_body"),
        ("from uvicorn import server as s\ns.Server = None", "uvicorn.server.Server"),
        ("scope['fastapi_inner_astack']", "fastapi_inner_astack"),
    ],
)
def test_every_kind_of_use_is_found(code: str, part: str) -> None:
    assert list(uses_in(ast.parse(code))) == [part]


@pytest.mark.parametrize(
    "code", ["self._own = self._own", "row._fields", "from app.config import _x", "x.__class__", "a, _ = b"]
)
def test_own_and_documented_names_are_not_found(code: str) -> None:
    assert list(uses_in(ast.parse(code))) == []


# Each part works as it is used.


def test_uvicorn_has_every_attribute_that_the_protocol_uses() -> None:
    async def ask(scope: object, receive: object, send: object) -> None: ...

    async def connect() -> http_protocol.Protocol:
        return http_protocol.Protocol(Config(ask, lifespan="off"), ServerState(), {})

    protocol = asyncio.run(connect())
    arguments: dict[str, Any] = dict.fromkeys(inspect.signature(RequestResponseCycle).parameters)
    cycle = RequestResponseCycle(**arguments)
    classes = {
        node.name: node for node in ast.walk(trees()["server/http_protocol.py"]) if isinstance(node, ast.ClassDef)
    }
    used_of_protocol = attributes(classes["Protocol"], "self")
    used_of_cycle = attributes(classes["Exchange"], "cycle") | attributes(classes["Protocol"], "cycle")

    assert {"flow", "keep_alive", "transport", "more_body"} <= used_of_cycle
    assert {name for name in used_of_cycle if not hasattr(cycle, name)} == set()
    assert {"parser", "pipeline", "scope", "timeout_keep_alive_task"} <= used_of_protocol
    unset = http_protocol.Protocol.__annotations__.keys()
    assert {name for name in used_of_protocol - unset if not hasattr(protocol, name)} == set()


def attributes(of_class: ast.ClassDef, owner: str) -> set[str]:
    """The attributes of `owner`, or of `self.owner`, that a class uses."""
    return {
        node.attr
        for node in ast.walk(of_class)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in {owner, f"self.{owner}"}
    }


def test_uvicorn_has_every_method_that_ours_override() -> None:
    of_protocol, of_supervisor = vars(HttpToolsProtocol).keys(), vars(Multiprocess).keys()

    assert {
        "connection_lost", "connection_made", "data_received", "on_body", "on_headers_complete", "on_message_complete",
        "on_response_complete", "send_400_response", "shutdown",
    } == vars(http_protocol.Protocol).keys() & {name for name in of_protocol if not name.startswith("__")}  # fmt: skip
    assert "resume_reading" in vars(FlowControl)
    assert {"init_processes", "handle_int", "run"} <= of_supervisor
    assert {"data_received", "handle_events", "run_asgi", "send", "shutdown"} <= vars(WebSocketsSansIOProtocol).keys()


def test_uvicorn_has_every_attribute_that_our_websocket_protocol_uses() -> None:
    async def connect() -> websocket_protocol.WebSocketProtocol:
        return websocket_protocol.WebSocketProtocol(Config(lambda: None, lifespan="off"), ServerState(), {})

    protocol = asyncio.run(connect())
    (of_class,) = (node for node in trees()["server/websocket_protocol.py"].body if isinstance(node, ast.ClassDef))
    used = attributes(of_class, "self")

    assert {"conn", "handshake_initiated", "transport"} <= used
    assert {name for name in used if not hasattr(protocol, name)} == set()
    assert protocol.conn.events == []


def test_pillow_opens_pictures_of_any_size_without_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    huge = bytearray(png())
    huge[16:24] = 2 * (16_000).to_bytes(4)
    huge[29:33] = zlib.crc32(huge[12:29]).to_bytes(4)

    with pytest.raises(Image.DecompressionBombError):
        Image.open(BytesIO(huge))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert Image.open(BytesIO(huge)).size == (16_000, 16_000)


def test_fastapi_ends_dependencies_of_a_function_with_the_stack_in_the_scope() -> None:
    steps: list[str] = []

    async def transaction() -> AsyncIterator[None]:
        steps.append("begin")
        try:
            yield
        except BaseException:
            steps.append("roll back")
            raise
        steps.append("commit")

    router = APIRouter(route_class=Route)

    @router.post("/")
    async def write(_: Annotated[None, Depends(transaction, scope="function")]) -> None:
        steps.append("write")
        if steps.count("write") == 1:
            raise DeadlockDetected

    api = FastAPI()
    api.include_router(router)

    assert TestClient(api).post("/").status_code == 200
    assert steps == ["begin", "write", "roll back", "begin", "write", "commit"]


class DeadlockDetected(psycopg2.errors.DeadlockDetected):
    """As PostgreSQL reports it.

    Only the driver can set the attribute of its own class.
    """

    pgcode = psycopg2.errorcodes.DEADLOCK_DETECTED


def test_fastapi_tells_which_credential_a_route_requires() -> None:
    by_name = {route.name: route for router in ROUTERS for route in router.routes if isinstance(route, Route)}

    assert required_credential(by_name["create_post"].dependant) is not None
    assert required_credential(by_name["sign_up"].dependant) is None


def test_prometheus_client_stores_counters_where_the_value_class_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(values, "ValueClass", values.MultiProcessValue(lambda: 7))

    Counter("requests", "Counted.", registry=CollectorRegistry()).inc()

    assert [path.name for path in tmp_path.iterdir()] == ["counter_7.db"]
