"""Which requests share a batch, and which wait for no others."""

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, Engine, text

from app.api import batch_queues
from app.config import get_settings
from app.security import access_tokens
from app.services import feed
from tests.fixtures import Person, counted_queries

MAX_SECONDS = 10


def home_of(reader: Person) -> feed.PageRequest:
    query = feed.PageQuery("home", 10, reader_id=reader.id)
    return feed.PageRequest(access_tokens.verify(reader.token), query)


def test_page_is_read_while_a_home_page_waits(database: Engine, person: Person, make_post: Callable[..., int]) -> None:
    post_id = make_post(person)
    page = feed.PageRequest(access_tokens.verify(person.token), feed.PageQuery("new", 10))

    async def read_both(blocking: Connection) -> list[int]:
        home = asyncio.create_task(batch_queues.read_page(home_of(person)))
        await asyncio.sleep(0.1)
        response = await asyncio.wait_for(batch_queues.read_page(page), MAX_SECONDS)
        assert not home.done()
        blocking.rollback()
        assert (await asyncio.wait_for(home, MAX_SECONDS)).page.rows == response.page.rows
        return [row.id for row in response.page.rows]

    with database.connect() as blocking:
        blocking.execute(text("LOCK TABLE tag_follows IN ACCESS EXCLUSIVE MODE"))
        assert asyncio.run(read_both(blocking)) == [post_id]


@pytest.mark.skipif(get_settings().max_batch < 20, reason="MAX_BATCH is set too low")
def test_caller_has_one_home_page_in_a_batch(database: Engine, make_person: Callable[..., Person]) -> None:
    hostile, *others = (make_person() for _ in range(6))

    async def read_all(readers: list[Person]) -> None:
        async with asyncio.timeout(MAX_SECONDS):
            await asyncio.gather(*(batch_queues.read_page(home_of(reader)) for reader in readers))

    for readers, batches in (([hostile] * 5, 5), (others, 1), ([hostile] * 3 + others, 3)):
        with counted_queries(database) as statements:
            asyncio.run(read_all(readers))
        assert len(statements) == batches
