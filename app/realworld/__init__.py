"""The RealWorld (Conduit) API under `/api`, for frontends that are written for it. `ROUTERS` lists its routes.

It has no rules of its own: it translates its contract to the services of this project and back. Only `app.main`
imports it, with `REALWORLD_ENABLED=true`. docs/realworld.md describes it.
"""

from app.realworld import article, comment, user

PREFIX = "/api"
ROUTERS = (user.router, article.router, comment.router)
