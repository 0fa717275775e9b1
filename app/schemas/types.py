"""Field types shared by several schemas: storable text, names, ids."""

import json
import math
import re
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError, PydanticKnownError
from typing_extensions import TypeAliasType

from app import config, models
from app.config import get_settings
from app.security import passwords
from app.security.email_addresses import is_placeholder_email, noreply_domain

MAX_PASSWORD_CODE_POINTS = 128
MAX_PAGE_SIZE = 100
MAX_SKIP = 10_000
# A cursor contains the search, and has to fit into a `Link` of 2 KB.
MAX_SEARCH_BYTES = 1_000
MAX_COMMENT_CHARACTERS = 10_000
MAX_TAGS = 5
MAX_TAG_CHARACTERS = 30
MAX_MEDIA = 4
# Before normalization, which composes letters with their marks.
MAX_RAW_TAG_CHARACTERS = 100
MAX_MARKS = 2
# The driver cannot read a time past the year 9999 in the database's time zone.
MAX_AHEAD = timedelta(days=36_525)
USERNAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
USERNAME_RULES = (
    "ASCII letters, digits, `_`, `.` and `-`. It begins with a letter or digit, does not end with `.` or `-`, and is "
    "unique in any case. `user` followed by digits is reserved."
)


def _storable(text: str) -> str:
    if "\0" in text:
        raise PydanticCustomError("string_nul", "String should not contain the NUL character")
    return text


# White space, controls, Unicode's Default_Ignorable_Code_Point, and the empty Braille pattern, which Unicode does not
# count as white space.
_INVISIBLE = re.compile(
    r"[\s\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]*"
)


def _visible(text: str) -> str:
    if _INVISIBLE.fullmatch(text):
        raise PydanticCustomError("string_invisible", "String should have a visible character")
    return text


def _folded(text: str) -> str:
    """Return the text without differences of case and compatibility: case folding and NFKC.

    Two passes, because one leaves 637 characters that another would change.
    """
    for _ in range(2):
        text = unicodedata.normalize("NFKC", text.casefold())
    return text


def normalized_tag(text: str) -> str:
    """Return the tag in its stored form.

    Raises `PydanticCustomError` unless it then consists of letters, digits, `-` and `_`.
    """
    text = _folded(text)
    if len(text) > MAX_TAG_CHARACTERS:
        raise PydanticCustomError("tag_too_long", f"tag should have at most {MAX_TAG_CHARACTERS} characters")
    if not _has_tag_characters(text):
        raise PydanticCustomError("tag", "tag should consist of letters, digits, `-` and `_`")
    return text


def _has_tag_characters(text: str) -> bool:
    """Whether the text has visible letters or digits, beside them only `-` and `_`.

    A letter may have two combining marks, as vowels have in Hindi and Thai. More of them would cover other lines.
    """
    mark_count = MAX_MARKS
    for character in text:
        category = unicodedata.category(character)
        if category in {"Mn", "Mc"}:
            mark_count += 1
        else:
            mark_count = 0 if category.startswith("L") else MAX_MARKS
            if not (category.startswith("L") or category == "Nd" or character in "-_"):
                return False
        if mark_count > MAX_MARKS or _INVISIBLE.fullmatch(character):
            return False
    return text.strip("-_") != ""


def _visible_or_empty(text: str) -> str:
    return text and _visible(text)


def _email(text: str) -> str:
    try:
        validate_email(text, check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        # The library's own message quotes parts of the address.
        raise PydanticCustomError("email", "value is not a valid email address") from None
    return text


def _no_placeholder(text: str) -> str:
    if is_placeholder_email(text):
        raise PydanticCustomError(
            "email_placeholder",
            "addresses at {domain} are placeholders, which receive no mail; use your own address",
            {"domain": noreply_domain()},
        )
    return text


def _username(text: str) -> str:
    if not USERNAME.fullmatch(text) or re.fullmatch(r"user[0-9]+", text, re.IGNORECASE):
        raise PydanticCustomError(
            "username",
            "username should consist of ASCII letters, digits, `_`, `.` and `-`, begin with a letter or digit, "
            "not end with `.` or `-`, and not look like `user1`, which is reserved for accounts without a username",
        )
    return text


def _long_enough(password: str) -> str:
    minimum = get_settings().password_min_length
    if len(password) < minimum:
        raise PydanticKnownError("string_too_short", {"min_length": minimum})
    return password


def _uncommon(password: str) -> str:
    if get_settings().password_blocklist_enabled and passwords.is_common(password):
        raise PydanticCustomError("password_common", "This password is one of the most common; choose another")
    return password


def _describe_password(schema: JsonDict) -> None:
    schema.update(format="password", minLength=get_settings().password_min_length)


def _fits_into_cursor(text: str) -> str:
    if len(json.dumps(text, ensure_ascii=False).encode(errors="surrogatepass")) - len('""') > MAX_SEARCH_BYTES:
        raise PydanticCustomError("string_too_long", "String should take at most 1000 bytes in UTF-8")
    return text


_INTEGER = TypeAdapter(int)


def _zero_or_one(value: object) -> object:
    """Accept what the tutorial's `conint(le=1)` accepts, such as "1", 1.0 and true.

    With `TUTORIAL_DEFAULTS`, negative numbers count as 0.
    """
    number = _INTEGER.validate_python(value)
    return 0 if number < 0 and get_settings().tutorial_defaults else number


_RFC_3339_WITH_SPACE = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d[0-9:.]*) (\d\d:?\d\d)")
# Pydantic reads what is no time as a date, and then complains of characters at its end.
_DATE_OR_TIME = re.compile(
    r"\d{4}-\d\d-\d\d([T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d([.,]\d+)?)?(Z|[+-]([01]\d|2[0-3]):?[0-5]\d)?)?",
    re.ASCII | re.IGNORECASE,
)


def _written_out(value: object) -> object:
    """Refuse numbers, which Pydantic would read as seconds since 1970.

    A `+` in a query string is decoded as a space, so a space before the offset is read as `+`.
    """
    if isinstance(value, str):
        if _RFC_3339_WITH_SPACE.fullmatch(value):
            value = _RFC_3339_WITH_SPACE.sub(r"\1+\2", value)
        if not _DATE_OR_TIME.fullmatch(value):
            raise PydanticCustomError("datetime_format", "the time should look like 2024-03-10 or 2024-03-10T12:00:00Z")
        return value
    if isinstance(value, int | float):
        raise PydanticCustomError("datetime_format", "the time should be text such as 2024-03-10T12:00:00Z")
    return value


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


def _number_as_text(value: object) -> object:
    """Convert numbers to text with `TUTORIAL_DEFAULTS`, as Pydantic 1 does.

    1984 becomes "1984", and `true` "True". Python's parser refuses JSON numbers of more than 4,300 digits. An infinite
    number (`1e400`) is not converted, so it is refused.
    """
    is_number = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    return str(value) if is_number and get_settings().tutorial_defaults else value


def _page_size(limit: int) -> int:
    minimum = 0 if get_settings().tutorial_defaults else 1
    if limit < minimum:
        raise PydanticKnownError("greater_than_equal", {"ge": minimum})
    return min(limit, MAX_PAGE_SIZE)


def _not_too_far(skip: int) -> int:
    if skip > MAX_SKIP and not get_settings().tutorial_defaults:
        raise PydanticKnownError("less_than_equal", {"le": MAX_SKIP})
    return skip


def _in_utc(time: datetime) -> datetime:
    # Convert to UTC, because PostgreSQL accepts no offset past 16 hours. Python has no year past 9999.
    try:
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except OverflowError:
        raise PydanticCustomError("datetime_range", "the time is out of range") from None


def _ahead(time: datetime) -> datetime:
    now = datetime.now(UTC)
    if not now < time < now + MAX_AHEAD:
        raise PydanticCustomError("datetime_range", "the time should be in the future, within 100 years")
    return time


# Any integer is a valid id. One that cannot exist is 404 instead of 422.
Id = Annotated[
    int, Field(description="An id. One that does not exist is 404.", examples=[1]), BeforeValidator(_no_boolean)
]
Text = Annotated[str, AfterValidator(_storable)]
SearchText = Annotated[Text, Field(max_length=500), AfterValidator(_fits_into_cursor)]
Title = Annotated[
    str, Field(min_length=1, max_length=300, description="Title of the post.", examples=["Top beaches in Florida"]),
    AfterValidator(_storable), AfterValidator(_visible),
]  # fmt: skip
Content = Annotated[
    str,
    Field(
        min_length=1, max_length=40_000, description="Text of the post.", examples=["Check out these awesome beaches"]
    ),
    AfterValidator(_storable), AfterValidator(_visible),
]  # fmt: skip
CommentContent = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_COMMENT_CHARACTERS,
        description="Text of the comment.",
        examples=["What about Clearwater?"],
    ),
    AfterValidator(_storable), AfterValidator(_visible),
]  # fmt: skip
Reason = Annotated[
    str, Field(min_length=1, max_length=500, examples=["Spam"]), AfterValidator(_storable), AfterValidator(_visible)
]
# For the fields that the tutorial has: `Annotated[Title, NUMBER_AS_TEXT]`.
NUMBER_AS_TEXT = BeforeValidator(_number_as_text)
TagName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_RAW_TAG_CHARACTERS,
        description=f"A tag: 1 to {MAX_TAG_CHARACTERS} letters, digits, `-` and `_`. Upper case counts as lower case.",
        examples=["street-food"],
    ),
    AfterValidator(normalized_tag),
]
TagNames = Annotated[list[TagName], Field(max_length=MAX_TAGS), AfterValidator(lambda names: [*dict.fromkeys(names)])]
MediaIds = Annotated[
    list[Id], Field(max_length=MAX_MEDIA, examples=[[1]]), AfterValidator(lambda ids: [*dict.fromkeys(ids)])
]
TagPrefix = Annotated[
    Text,
    Field(max_length=MAX_RAW_TAG_CHARACTERS, description="Only tags that begin with this.", examples=["street"]),
    AfterValidator(_folded),
]
# A name that users give to their own items.
Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_storable), AfterValidator(_visible)]
Email = Annotated[
    str, Field(max_length=320, examples=["ada@example.com"], json_schema_extra={"format": "email"}),
    AfterValidator(_storable), AfterValidator(_email),
]  # fmt: skip
# For accounts. Lookups take `Email`, because a placeholder there is simply an unknown address.
OwnEmail = Annotated[Email, AfterValidator(_no_placeholder)]
Username = Annotated[
    str,
    Field(
        min_length=3,
        max_length=30,
        examples=["ada"],
    ),
    AfterValidator(_username),
]
DisplayName = Annotated[
    str, Field(max_length=50, examples=["Ada L."]),
    AfterValidator(_storable), AfterValidator(_visible_or_empty),
]  # fmt: skip
Bio = Annotated[
    str, Field(max_length=500, examples=["I write about engines."]),
    AfterValidator(_storable), AfterValidator(_visible_or_empty),
]  # fmt: skip
Alt = Annotated[
    str, Field(max_length=1_500, examples=["Two boats on a lake"]),
    AfterValidator(_storable), AfterValidator(_visible_or_empty),
]  # fmt: skip
Password = Annotated[
    str,
    Field(
        max_length=MAX_PASSWORD_CODE_POINTS,
        description="A password. A server may refuse the most common ones.",
        examples=["correct horse battery"],
        json_schema_extra=_describe_password,
    ),
    AfterValidator(_long_enough), AfterValidator(_storable), AfterValidator(_uncommon),
]  # fmt: skip
MailedToken = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        description="The token of the link in the mail.",
        examples=["0123456789abcdef" * 2],
    ),
    AfterValidator(_storable),
]
# Named types, so that the OpenAPI document and generated clients have each of them once.
Role = TypeAliasType("Role", Annotated[models.Role, Field(description="What an account may do.", examples=["user"])])
Sort = TypeAliasType(
    "Sort",
    Annotated[
        config.Sort,
        Field(description="By time (`new`, `old`), by votes (`top`), or by votes that count less with age (`hot`)."),
    ],
)
CommentSort = TypeAliasType(
    "CommentSort",
    Annotated[
        Literal["top", "new", "old"],
        Field(description="By votes (`top`) or by time (`new`, `old`)."),
    ],
)
Scope = TypeAliasType("Scope", Annotated[models.Scope, Field(description="What an API key may do.")])
VoteDirection = TypeAliasType(
    "VoteDirection",
    Annotated[
        Literal[0, 1],
        BeforeValidator(_zero_or_one, json_schema_input_type=Literal[0, 1]),
        Field(
            description="1 votes, 0 removes the vote.",
            examples=[1],
            json_schema_extra={"x-enum-varnames": ["REMOVE", "VOTE"]},  # Else generators name them VALUE_0, VALUE_1.
        ),
    ],
)
Limit = Annotated[
    int, Field(ge=1, description=f"Maximum number of items. More than {MAX_PAGE_SIZE} counts as {MAX_PAGE_SIZE}."),
    AfterValidator(lambda limit: min(limit, MAX_PAGE_SIZE)),
]  # fmt: skip
Skip = Annotated[int, Field(ge=0, le=MAX_SKIP, description="Number of items to leave out before the page.")]
# The same for `GET /posts`. With `TUTORIAL_DEFAULTS` the limit may be 0, and the route itself checks a skip past the
# maximum.
PostLimit = Annotated[
    int,
    Field(
        description=f"Maximum number of items. More than {MAX_PAGE_SIZE} counts as {MAX_PAGE_SIZE}.",
        json_schema_extra={"minimum": 1},
    ),
    AfterValidator(_page_size),
]
PostSkip = Annotated[
    int,
    Field(ge=0, description="Number of items to leave out before the page.", json_schema_extra={"maximum": MAX_SKIP}),
    AfterValidator(_not_too_far),
]
Cursor = Annotated[
    str,
    Field(max_length=4000, description="Position of the page, from the `Link` header of another page."),
]
Time = Annotated[datetime, BeforeValidator(_written_out), AfterValidator(_in_utc)]
FutureTime = Annotated[Time, AfterValidator(_ahead)]
