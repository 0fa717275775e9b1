"""The cost of reading and writing notifications: it does not grow with those that a user has."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.orm import Session

from app import models
from app.database import event_log
from app.schemas.comment import CommentIn
from app.schemas.page import KeysetPage
from app.services import comment, follow, notification
from tests.figures import Figure
from tests.fixtures import Person
from tests.services.test_plans import Explained, explained, shown

TABLES = {"notifications", "events", "comments", "posts", "users", "blocks", "post_mutes"}
# An index of ten times the rows may be one level deeper.
MAX_GROWTH = 1.5
_GROW = """
    WITH written AS (
        INSERT INTO comments (post_id, owner_id, content)
        SELECT :post, :actor, 'c' FROM generate_series(1, :count) RETURNING id
    ), logged AS (
        INSERT INTO events (kind, actor_id, post_id, comment_id) SELECT 'comment', :actor, :post, id FROM written
    )
    INSERT INTO notifications (user_id, kind, actor_id, post_id, comment_id, read_at)
    SELECT :user, 'comment', :actor, :post, id, CASE WHEN id % 2 = 0 THEN now() END FROM written
"""


@pytest.fixture
def empty_after(connection: Connection) -> Iterator[None]:
    yield
    connection.execute(text("TRUNCATE users, posts, notifications, events CASCADE"))


@pytest.mark.slow
@pytest.mark.usefixtures("empty_after")
def test_ten_times_the_notifications_cost_no_more_buffers(
    database: Engine,
    connection: Connection,
    person: Person,
    make_person: Callable[..., Person],
    make_post: Callable[..., int],
    figure: Figure,
) -> None:
    actor, post_id = make_person(), make_post(person)

    def grow(count: int) -> None:
        # Of an engine without the application's time limits, which is not explained.
        engine = create_engine(connection.engine.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as writer:
            values = {"user": person.id, "actor": actor.id, "post": post_id, "count": count}
            writer.execute(text("SET enable_seqscan = off"))
            writer.execute(text(_GROW), values)
            writer.execute(text("VACUUM ANALYZE"))
        engine.dispose()

    def measured() -> dict[str, list[Explained]]:
        middle = connection.scalar(text("SELECT max(id) / 2 FROM notifications")) or 0
        found = {}
        with Session(connection) as session:
            user = session.get_one(models.User, person.id)
            other = session.get_one(models.User, actor.id)
            calls: dict[str, Callable[[], object]] = {
                "first page": lambda: notification.list_own(
                    session, user, KeysetPage("", 20, 0, None), only_unread=False
                ),
                "first unread page": lambda: notification.list_own(
                    session, user, KeysetPage("", 20, 0, None), only_unread=True
                ),
                "later page": lambda: notification.list_own(
                    session, user, KeysetPage("", 20, 0, middle), only_unread=False
                ),
                "count of unread": lambda: notification.count_unread(session, user),
                "marking 1,000": lambda: notification.mark_read(session, user, 2**62),
                "events": lambda: event_log.read_after(session, event_log.START, 100),
            }
            for name, call in calls.items():
                for _ in range(2):  # At first a server process also reads the catalogues.
                    with explained(database) as plans:
                        call()
                found[name] = plans
            for _ in range(2):
                with explained(database) as plans:
                    comment.write(session, other, post_id, CommentIn(content="text"))
            found["comment"] = plans[:1]
            with explained(database) as plans:
                follow.add(session, other, person.id)
                follow.remove(session, other, person.id)
            found["follow"] = [plan for plan in plans if "log_event" in plan.statement]
            assert len(found["follow"]) == 1
        return found

    grow(10_000)
    small = measured()
    grow(90_000)
    large = measured()

    grown = {}
    for name, before in small.items():
        cost, cost_before = (sum(plan.buffer_count for plan in plans) for plans in (large[name], before))
        figure(f"{name}: {cost_before} blocks with 10,000 notifications, {cost} with 100,000")
        read_through = {
            node["Relation Name"] for plan in large[name] for node in plan.nodes if node["Node Type"] == "Seq Scan"
        } & (TABLES - {"users", "posts", "blocks", "post_mutes"})
        if read_through or cost > MAX_GROWTH * cost_before + 30:
            grown[name] = (cost_before, cost, read_through, shown(large[name]))
    assert not grown, "\n\n".join(f"{name}: {found[:3]}\n{found[3]}" for name, found in grown.items())
