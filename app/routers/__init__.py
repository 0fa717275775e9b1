"""Routes: parameters, authorization and responses. `ROUTERS` lists them all."""

from app.routers import (
    api_key,
    auth,
    block,
    bookmark,
    comment,
    docs,
    email_verification,
    follow,
    home,
    media,
    meta,
    notification,
    password_reset,
    post,
    security_event,
    session,
    tag,
    totp,
    user,
    vote,
)

# Adapters of the fast path, by endpoint.
FAST = {**post.FAST, **home.FAST, **vote.FAST, **comment.FAST}
# In the order of the OpenAPI document.
ROUTERS = (
    post.router,
    vote.router,
    comment.router,
    tag.router,
    media.router,
    totp.router,
    user.router,
    follow.router,
    home.router,
    block.router,
    bookmark.router,
    notification.router,
    security_event.router,
    auth.router,
    session.router,
    api_key.router,
    password_reset.router,
    email_verification.router,
    meta.router,
    docs.router,
)
