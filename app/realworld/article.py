"""`/api/articles` and `/api/tags`: posts as articles, votes as favorites."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.exceptions import RequestValidationError
from sqlalchemy.orm import Session

from app.api import batch_queues
from app.api.authentication import PublicToken, PublicUser, ScopedToken, ScopedUser, network_of_anonymous
from app.api.route import Route
from app.database.sessions import SessionDep
from app.errors import PostNotFound, UserNotFound
from app.realworld import queries
from app.realworld.queries import MAX_ARTICLES
from app.realworld.reading import reading
from app.realworld.schemas import (
    ArticleChangesBody,
    ArticlePost,
    ArticlePostChange,
    NewArticleBody,
    post_id_of,
)
from app.schemas.types import MAX_PAGE_SIZE, Skip, TagName, Text
from app.security.access_tokens import ANONYMOUS, AccessToken
from app.services import auth, feed, post, profile, tag, vote

router = APIRouter(prefix="/api", include_in_schema=False, route_class=Route)

Slug = Annotated[str, Path()]
ArticleLimit = Annotated[int, Query(ge=1)]
Offset = Annotated[Skip, Query()]
Username = Annotated[Text | None, Query()]


@router.get("/articles")
async def list_articles(
    token: PublicToken,
    tag_name: Annotated[TagName | None, Query(alias="tag")] = None,
    author: Username = None,
    favorited: Username = None,
    limit: ArticleLimit = MAX_ARTICLES,
    offset: Offset = 0,
) -> dict[str, Any]:
    """List articles, newest first; favorites of a user with the newest favorite first."""
    if favorited is not None and (tag_name is not None or author is not None):
        problem = {"type": "combined", "loc": ("query", "favorited"), "msg": "cannot be combined with tag or author"}
        raise RequestValidationError([problem])
    named = favorited if author is None else author
    user_id = None if named is None else await reading(lambda db: _user_id(db, token, named))
    if named is not None and user_id is None:
        return _as_list([], 0)
    is_favorites = favorited is not None
    query = feed.PageQuery(
        order="voted" if is_favorites else "new",
        limit=min(limit, MAX_ARTICLES),
        skip=offset,
        owner_id=None if is_favorites else user_id,
        reader_id=user_id if is_favorites else None,
        tag=tag_name,
    )
    post_ids = await _read(token, query)

    def look_up(db: Session) -> dict[str, Any]:
        articles = queries.articles(db, token.user_id, post_ids, with_body=False)
        return _as_list(articles, _count(db, user_id, tag_name, is_favorites))

    return await reading(look_up)


@router.get("/articles/feed")
async def list_feed(token: ScopedToken, limit: ArticleLimit = MAX_ARTICLES, offset: Offset = 0) -> dict[str, Any]:
    """List the caller's home page: articles of followed users and tags, and their own, newest first."""
    query = feed.PageQuery(order="home", limit=min(limit, MAX_ARTICLES), skip=offset, reader_id=token.user_id)
    post_ids = await _read(token, query)

    def look_up(db: Session) -> dict[str, Any]:
        articles = queries.articles(db, token.user_id, post_ids, with_body=False)
        return _as_list(articles, queries.count_feed(db, token.user_id))

    return await reading(look_up)


@router.post("/articles", status_code=201)
def create_article(new: NewArticleBody, caller: ScopedUser, db: SessionDep) -> dict[str, Any]:
    """Write an article, which is published at once."""
    written = post.write(db, caller, ArticlePost(**new.article.model_dump()))
    return _shown(db, caller.id, written.id)


@router.get("/articles/{slug}")
async def get_article(slug: Slug, token: PublicToken) -> dict[str, Any]:
    """Get an article with its body."""
    query = feed.PostQuery(post_id_of(slug))
    await batch_queues.read_page(feed.PageRequest(token, query, network_of_anonymous(token)))
    return await reading(lambda db: _shown(db, token.user_id, query.post_id))


@router.put("/articles/{slug}")
def change_article(slug: Slug, wanted: ArticleChangesBody, caller: ScopedUser, db: SessionDep) -> dict[str, Any]:
    """Change parts of the caller's article."""
    given = wanted.article.model_dump(exclude_unset=True)
    changed = post.change(db, caller, post_id_of(slug), ArticlePostChange(**given), None)
    return _shown(db, caller.id, changed.id)


@router.delete("/articles/{slug}", status_code=204)
def delete_article(slug: Slug, caller: ScopedUser, db: SessionDep) -> None:
    """Delete the caller's article. Moderators can delete every article."""
    post.remove(db, caller, post_id_of(slug), None)


@router.post("/articles/{slug}/favorite")
async def favorite_article(slug: Slug, token: ScopedToken) -> dict[str, Any]:
    """Vote for an article. Idempotent."""
    return await _vote(slug, token, is_for=True)


@router.delete("/articles/{slug}/favorite")
async def unfavorite_article(slug: Slug, token: ScopedToken) -> dict[str, Any]:
    """Remove the caller's vote. Idempotent."""
    return await _vote(slug, token, is_for=False)


@router.get("/tags")
def list_tags(caller: PublicUser, db: SessionDep) -> dict[str, Any]:
    """List the tags with the most articles."""
    page = tag.list_tags(db, caller, prefix="", sort="popular", limit=MAX_PAGE_SIZE, cursor=None)
    return {"tags": [each.name for each in page.tags]}


async def _read(token: AccessToken, query: feed.PageQuery) -> list[int]:
    """Return the ids of the query's posts that the caller sees.

    A page may end early, because its text is limited in bytes. With offsets a client would skip the posts after that,
    so pages are read until there are enough: at most three, for 20 posts of 160,000 bytes.
    """
    found: list[int] = []
    read_count = 0
    while read_count < query.limit:
        rest = feed.PageQuery(
            order=query.order, limit=query.limit - read_count, skip=query.skip + read_count, owner_id=query.owner_id,
            reader_id=query.reader_id, tag=query.tag, is_serialized=False,
        )  # fmt: skip
        result = await batch_queues.read_page(feed.PageRequest(token, rest, network_of_anonymous(token)))
        rows = result.page.rows
        found += [row.id for row, is_hidden in zip(rows, result.overlay.hidden, strict=True) if not is_hidden]
        read_count += len(rows)
        if result.page.next_cursor is None:
            break
    return found


async def _vote(slug: str, token: AccessToken, *, is_for: bool) -> dict[str, Any]:
    post_id = post_id_of(slug)
    await batch_queues.votes().submit(vote.Ballot(token, post_id, is_for))
    return await reading(lambda db: _shown(db, token.user_id, post_id))


def _user_id(db: Session, token: AccessToken, username: str) -> int | None:
    """Return the id of the user; None if there is none. Raises `NotAuthenticated` for an ended session."""
    if token != ANONYMOUS:
        auth.current_user(db, token.user_id, token.session_id)
    try:
        return profile.get_by_username(db, username, None).account.id
    except UserNotFound:
        return None


def _count(db: Session, user_id: int | None, tag_name: str | None, is_favorites: bool) -> int:
    """Return the number of articles in the list; with an author and a tag, the smaller of both numbers."""
    if is_favorites and user_id is not None:
        return queries.count_favorited(db, user_id)
    counts = []
    if user_id is not None:
        counts.append(queries.count_of_author(db, user_id))
    if tag_name is not None:
        counts.append(queries.count_of_tag(db, tag_name))
    return min(counts) if counts else queries.count_all(db)


def _as_list(articles: list[dict[str, Any]], count: int) -> dict[str, Any]:
    return {"articles": articles, "articlesCount": count}


def _shown(db: Session, viewer_id: int, post_id: int) -> dict[str, Any]:
    """Return one article. Raises `PostNotFound` if it was deleted or unpublished meanwhile."""
    found = queries.articles(db, viewer_id, [post_id], with_body=True)
    if not found:
        raise PostNotFound(post_id)
    return {"article": found[0]}
