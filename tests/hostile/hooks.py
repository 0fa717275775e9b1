"""Hooks of schemathesis (`SCHEMATHESIS_HOOKS`), in its own process: the caller, and checks of every answer."""

import os
import threading
from typing import Any

import psycopg2
import schemathesis

from tests.hostile.answers import assert_one_shape
from tests.hostile.caller import PUT_BACK, role_of

_own = threading.local()


@schemathesis.hook
def before_call(_context: Any, _case: Any, _kwargs: Any) -> None:
    if not hasattr(_own, "connection"):
        _own.connection = psycopg2.connect(os.environ["HOSTILE_DATABASE"])
        _own.connection.autocommit = True
    with _own.connection.cursor() as cursor:
        cursor.execute(PUT_BACK, {"role": role_of(os.environ["HOSTILE_CALLER"])})


@schemathesis.check
def one_shape_of_errors(_context: Any, response: Any, case: Any) -> None:
    headers = {name: values[0] for name, values in response.headers.items()}
    assert_one_shape(case.method, response.status_code, headers, response.content)
