FROM python:3.13-slim-trixie AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
COPY requirements.lock requirements-s3.lock /tmp/locks/
# With "requirements.lock requirements-s3.lock", pictures can be stored in a bucket.
ARG LOCKS=requirements.lock
WORKDIR /tmp/locks
# Hashed wheels only, so that nothing is compiled here and nothing outside the lock is installed.
# The environment has no pip, so that nothing can be installed in the final image.
RUN python -m venv --without-pip /opt/venv \
    && for lock in $LOCKS; do \
        python -m pip --python /opt/venv/bin/python install --require-hashes --only-binary :all: \
            --requirement "$lock" || exit 1; \
    done

FROM python:3.13-slim-trixie
LABEL org.opencontainers.image.title="social-posts-api" \
      org.opencontainers.image.description="A PostgreSQL-backed social-posts API" \
      org.opencontainers.image.licenses="MIT"
# A numeric uid, so that an orchestrator can verify that it is not root.
RUN groupadd --gid 10001 app \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin app
COPY --from=builder /opt/venv /opt/venv
WORKDIR /srv
COPY alembic.ini ./
COPY alembic ./alembic
COPY app ./app
COPY web ./web
# The volume of pictures begins as a copy of this folder, with its owner.
RUN install --directory --owner 10001 --group 10001 --mode 0755 /var/lib/social-posts/media
# `production` by default, so that the container refuses to start without SECRET_KEY and a database.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONFAULTHANDLER=1 \
    ENVIRONMENT=production \
    HOST=0.0.0.0 \
    PORT=8000
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# Without proxies from the environment, because the probe must reach this container.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open(f\"http://127.0.0.1:{os.environ['PORT']}/livez\", timeout=4)"]
CMD ["python", "-m", "app", "serve"]
