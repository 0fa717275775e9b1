"""API keys, in and out."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from app.schemas.types import FutureTime, Name, Scope


def _ordered(scopes: list[Scope]) -> list[Scope]:
    if (ordered := sorted(set(scopes))) not in (["feed"], ["read"], ["read", "write"]):
        raise PydanticCustomError("scopes", 'scopes should be ["read"], ["read", "write"] or ["feed"]')
    return ordered


Scopes = Annotated[
    list[Scope],
    Field(
        min_length=1,
        max_length=2,
        json_schema_extra={"anyOf": [{"contains": {"const": "read"}}, {"items": {"const": "feed"}}]},
        examples=[["read", "write"]],
    ),
    AfterValidator(_ordered),
]


class ApiKeyIn(BaseModel):
    """An API key to create."""

    name: Name = Field(description="Tells your keys apart.", examples=["nightly export"])
    scopes: Scopes = Field(
        description='`["read"]` allows safe methods only; `["read", "write"]` allows changes, too; `["feed"]` allows '
        "only Atom feeds of published posts, in their parameter `key`."
    )
    expires_at: FutureTime | None = Field(
        None, description="When the key stops working. Without it, the key does not expire."
    )


class ApiKeyOut(BaseModel):
    """An API key, without the key itself."""

    model_config = ConfigDict(from_attributes=True)

    id: int = Field(description="Id of the API key.", examples=[1])
    name: str = Field(description="Name of the API key.", examples=["nightly export"])
    scopes: list[Scope] = Field(description="What the key may do.", examples=[["read", "write"]])
    created_at: datetime = Field(description="When the key was created.")
    expires_at: datetime | None = Field(description="When the key stops working; `null`: never.")
    last_used_at: datetime | None = Field(description="When the key was last used, to about a minute.")


class NewApiKey(ApiKeyOut):
    """A new API key. The key itself is returned only in this response."""

    key: str = Field(
        description="Send it as `Authorization: Bearer …` or as `X-API-Key`.",
        examples=["spk_0123456789abcdefghijklmnopqrstuvwxyzAB"],
    )
