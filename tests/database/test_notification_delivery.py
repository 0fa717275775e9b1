"""Names that a text mentions."""

import time

import pytest

from app.database.notification_delivery import MAX_MENTIONS, mentioned_names


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("@ada", ["ada"]),
        ("Hello @Ada_L, and @bob.", ["ada_l", "bob"]),
        ("(@ada) @ada's @ADA @ada- @ada...", ["ada"]),
        ("@ada.l-b_ @3d-printer", ["ada.l-b_", "3d-printer"]),
        ("你好@ada，@bob你好", ["ada", "bob"]),
        ("@user12\n@ada", ["user12", "ada"]),
        ("ada@example.com a.b+c@ada -@ada", []),
        ("https://example.com/@ada @ada@example.com @@ada", []),
        ("@ad @ @. @-ada @" + "a" * 31, []),
        ("@" + "a" * 30, ["a" * 30]),
        ("@ａｄａ @Ädele", []),
        (" ".join(f"@name{n}" for n in range(20)), [f"name{n}" for n in range(MAX_MENTIONS)]),
        ("@ada " * 20 + "@bob", ["ada", "bob"]),
        ("", []),
    ],
)
def test_names_are_found_as_people_write_them(content: str, names: list[str]) -> None:
    assert mentioned_names(content) == names


@pytest.mark.parametrize("part", ["@", "@a", "@aaa.", "@a@", "a.", "@ad ", "@" + "a" * 40 + "@", "@-"])
def test_time_is_linear_in_the_text(part: str) -> None:
    """It takes 20 to 30 ns per character. If it were quadratic, this would take minutes."""
    content = (part * 400_000)[:400_000]
    begun = time.perf_counter()
    mentioned_names(content)
    assert time.perf_counter() - begun < 1
