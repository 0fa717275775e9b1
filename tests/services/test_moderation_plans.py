"""The cost of the queue of reports and of the moderation log: it does not grow with what is in them."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.orm import Session

from app import models
from app.schemas.moderation import ReportIn, ResolutionIn
from app.schemas.page import KeysetPage, page_of
from app.services import moderation
from tests.figures import Figure
from tests.fixtures import Person
from tests.services.test_plans import Explained, explained, shown

TABLES = {"reports", "moderation_log"}
# An index of ten times the rows may be one level deeper.
MAX_GROWTH = 1.5
DISMISSED = ResolutionIn(action="dismiss", note=None, until=None)
# Each reporter has one open report of the post, as of a raid, and many resolved ones.
_GROW = (
    """
    INSERT INTO users (email, email_canonical, password_hash)
    SELECT n || '@made.example', n || '@made.example', 'x'
    FROM generate_series((SELECT count(*) FROM users), (SELECT count(*) FROM users) + :count) AS n
    """,
    """
    INSERT INTO reports (reporter_id, post_id, reason)
    SELECT id, :post, 'Spam' FROM users WHERE email LIKE '%@made.example'
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO reports (reporter_id, user_id, reason, resolved_at, resolver_id, action)
    SELECT :reporter, n, 'Spam', now() - interval '1 second' * n, :moderator, 'dismiss'
    FROM generate_series(1, :count) AS n
    """,
    """
    INSERT INTO moderation_log (moderator_id, action, user_id, post_id, reason)
    SELECT :moderator, 'remove', :reporter, n, 'Spam' FROM generate_series(1, :count) AS n
    """,
)


@pytest.fixture
def empty_after(connection: Connection) -> Iterator[None]:
    yield
    connection.execute(text("TRUNCATE users, posts, reports, moderation_log, events, notifications CASCADE"))


@pytest.mark.slow
@pytest.mark.usefixtures("empty_after")
def test_ten_times_the_reports_and_entries_cost_no_more_buffers(
    database: Engine,
    connection: Connection,
    make_person: Callable[..., Person],
    make_post: Callable[..., int],
    figure: Figure,
) -> None:
    moderator, reporter, author = make_person(role="moderator"), make_person(), make_person()
    raided = make_post(author)

    def grow(count: int) -> None:
        # Of an engine without the application's time limits, which is not explained.
        engine = create_engine(connection.engine.url, isolation_level="AUTOCOMMIT")
        values = {"count": count, "post": raided, "reporter": reporter.id, "moderator": moderator.id}
        with engine.connect() as writer:
            for statement in _GROW:
                writer.execute(
                    text(statement), {name: value for name, value in values.items() if f":{name}" in statement}
                )
            writer.execute(text("VACUUM ANALYZE"))
        engine.dispose()

    def measured() -> dict[str, list[Explained]]:
        middle = connection.scalar(text("SELECT max(id) / 2 FROM reports WHERE resolved_at IS NULL"))
        entry = connection.scalar(text("SELECT max(id) / 2 FROM moderation_log"))
        resolved_at = connection.scalar(text("SELECT max(resolved_at) FROM reports WHERE user_id = 500"))
        first = page_of("list", limit=20, cursor=None)
        later = KeysetPage("", 20, 0, middle, resolved_at)
        found = {}
        with Session(connection) as session:
            acting, reporting = (session.get_one(models.User, each.id) for each in (moderator, reporter))
            posts = iter([make_post(author) for _ in range(6)])
            written = iter([moderation.write(session, reporting, reported(next(posts))).id for _ in range(2)])
            # Among the newest, which are the last to be read.
            of_raid = iter(
                connection.scalars(
                    text(
                        "SELECT id FROM reports WHERE post_id = :post AND resolved_at IS NULL ORDER BY id DESC LIMIT 2"
                    ),
                    {"post": raided},
                ).all()
            )
            # The writes first: the newest resolved reports are then those of a raid, each of a reporter of its own.
            calls: dict[str, Callable[[], object]] = {
                "report": lambda: moderation.write(session, reporting, reported(next(posts))),
                "resolve": lambda: moderation.resolve(session, acting, next(written), DISMISSED),
                "resolve 1,000 of a raid": lambda: moderation.resolve(session, acting, next(of_raid), DISMISSED),
                "open reports": lambda: moderation.list_reports(session, first, "open"),
                "open reports, later": lambda: moderation.list_reports(session, later, "open"),
                "resolved reports": lambda: moderation.list_reports(session, first, "resolved"),
                "resolved reports, later": lambda: moderation.list_reports(session, later, "resolved"),
                "log": lambda: moderation.list_log(session, first),
                "log, later": lambda: moderation.list_log(session, replace(later, last_id=entry)),
            }
            for name, call in calls.items():
                for _ in range(2):  # At first a server process also reads the catalogues.
                    with explained(database) as plans:
                        call()
                found[name] = plans
        return found

    grow(10_000)
    small = measured()
    grow(90_000)
    large = measured()

    grown = {}
    for name, before in small.items():
        cost, cost_before = (sum(plan.buffer_count for plan in plans) for plans in (large[name], before))
        figure(f"{name}: {cost_before} blocks with 10,000 reports and entries, {cost} with 100,000")
        read_through = {
            node["Relation Name"] for plan in large[name] for node in plan.nodes if node["Node Type"] == "Seq Scan"
        } & TABLES
        if read_through or cost > MAX_GROWTH * cost_before + 30:
            grown[name] = (cost_before, cost, read_through, shown(large[name]))
    assert not grown, "\n\n".join(f"{name}: {found[:3]}\n{found[3]}" for name, found in grown.items())


def reported(post_id: int) -> ReportIn:
    return ReportIn(post_id=post_id, reason="Spam")
