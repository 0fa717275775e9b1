"""`/api/articles/{slug}/comments`: comments as a flat list."""

import json
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path
from sqlalchemy import select

from app.api import batch_queues
from app.api.authentication import PublicToken, ScopedUser
from app.api.route import Route
from app.database.sessions import SessionDep
from app.errors import CommentNotFound, PostNotFound
from app.models import Post
from app.realworld import queries
from app.realworld.reading import reading
from app.realworld.schemas import NewCommentBody, post_id_of, written_time
from app.schemas.comment import MAX_THREAD_DEPTH, CommentIn
from app.schemas.types import MAX_PAGE_SIZE, Id
from app.services import comment

router = APIRouter(prefix="/api/articles/{slug}/comments", include_in_schema=False, route_class=Route)

Slug = Annotated[str, Path()]


@router.get("")
async def list_comments(slug: Slug, token: PublicToken) -> dict[str, Any]:
    """List the newest 100 comments, with the newest five replies of each, newest first and without their nesting."""
    query = comment.ThreadQuery(post_id_of(slug), None, "new", MAX_PAGE_SIZE, MAX_THREAD_DEPTH)
    thread = await batch_queues.threads().submit(comment.ThreadRequest(token, query))
    flat = sorted(_flattened(json.loads(thread.json)), key=lambda each: -each["id"])
    author_ids = [*{each["author"]["id"] for each in flat}]
    authors = await reading(lambda db: queries.profiles(db, token.user_id, author_ids)) if flat else {}
    return {
        "comments": [_shown(each, authors[each["author"]["id"]]) for each in flat if each["author"]["id"] in authors]
    }


@router.post("", status_code=201)
def create_comment(slug: Slug, new: NewCommentBody, caller: ScopedUser, db: SessionDep) -> dict[str, Any]:
    """Comment on an article."""
    written = comment.write(db, caller, post_id_of(slug), CommentIn(content=new.comment.body))
    author = queries.profiles(db, caller.id, [caller.id])[caller.id]
    return {"comment": _shown(written.model_dump(), author)}


@router.delete("/{id}", status_code=204)
def delete_comment(slug: Slug, comment_id: Annotated[Id, Path(alias="id")], caller: ScopedUser, db: SessionDep) -> None:
    """Delete the caller's comment. Moderators can delete every comment."""
    post_id = post_id_of(slug)
    if db.scalar(select(Post.id).where(Post.id == post_id, Post.visible_to(caller))) is None:
        raise PostNotFound(post_id)
    if comment.get(db, caller, comment_id).post_id != post_id:
        raise CommentNotFound(comment_id)
    comment.remove(db, caller, comment_id, None)


def _flattened(thread: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the comments of a thread without their nesting, and without those that were deleted."""
    found = []
    for each in thread:
        if each["author"] is not None:
            found.append(each)
        found += _flattened(each["replies"])
    return found


def _shown(shown: dict[str, Any], author: dict[str, Any]) -> dict[str, Any]:
    """Return a comment of the main API as RealWorld has it."""
    times = {
        name: time if isinstance(time, datetime) else datetime.fromisoformat(time)
        for name, time in (("createdAt", shown["created_at"]), ("updatedAt", shown["updated_at"]))
    }
    written = {name: written_time(time) for name, time in times.items()}
    return {"id": shown["id"], **written, "body": shown["content"], "author": author}
