"""Routes: parameters, authorization and responses. `ROUTERS` lists them all."""

from app.routers import (
    api_key,
    auth,
    docs,
    email_verification,
    meta,
    password_reset,
    post,
    security_event,
    session,
    totp,
    user,
    vote,
)

# Routers whose operations the fast path serves. FastAPI knows them too, for OpenAPI and unusual requests.
FAST_ROUTERS = (post.fast, vote.fast)
# In the order of the OpenAPI document.
ROUTERS = (
    *FAST_ROUTERS,
    post.router,
    totp.router,
    user.router,
    security_event.router,
    auth.router,
    session.router,
    api_key.router,
    password_reset.router,
    email_verification.router,
    meta.router,
    docs.router,
)
