"""Concurrent writes to one post: no change is lost without an error."""

from collections.abc import Awaitable, Callable

import httpx2
import pytest
from sqlalchemy import Connection, text

from tests.figures import Figure
from tests.fixtures import Person
from tests.races.conftest import Crowd


def check_writers(
    crowd: Crowd, connection: Connection, person: Person, post_id: int, *, writer_count: int, changes_each: int
) -> str:
    path = f"/posts/{post_id}"

    def writer(number: int) -> Callable[[httpx2.AsyncClient], Awaitable[list[tuple[int, str, str]]]]:
        async def write(client: httpx2.AsyncClient) -> list[tuple[int, str, str]]:
            outcomes = []
            for change in range(changes_each):
                etag = (await client.get(path, headers=person.headers)).headers["ETag"]
                content = f"change {change} of writer {number}"
                answer = await client.put(
                    path,
                    headers={**person.headers, "If-Match": etag},
                    json={"title": "contended", "content": content},
                )
                outcomes.append((answer.status_code, answer.headers.get("ETag", ""), content))
            return outcomes

        return write

    outcomes = [
        outcome for outcomes in crowd.run([writer(n) for n in range(writer_count)]) for outcome in outcomes
    ]  # fmt: skip

    written = {etag: content for status, etag, content in outcomes if status == 200}
    lost = [status for status, _, _ in outcomes if status != 200]
    assert set(lost) == {412}, "no write lost, so none raced"
    assert len(written) + len(lost) == writer_count * changes_each, "two changes got the same version"
    version, content = connection.execute(text("SELECT version, content FROM posts")).one()
    assert version == 1 + len(written)
    assert written[f'"{version}"'] == content
    return f"{len(written)} changes made {version - 1} versions, {len(lost)} were refused"


def test_of_many_changes_to_one_version_exactly_one_succeeds(
    crowd: Crowd, connection: Connection, person: Person, make_post: Callable[..., int]
) -> None:
    check_writers(crowd, connection, person, make_post(person), writer_count=32, changes_each=10)


@pytest.mark.slow
def test_no_update_is_lost_among_32_writers_with_100_changes_each(
    crowd: Crowd,
    connection: Connection,
    person: Person,
    make_post: Callable[..., int],
    figure: Figure,
) -> None:
    figure("R3: " + check_writers(crowd, connection, person, make_post(person), writer_count=32, changes_each=100))
