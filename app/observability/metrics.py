"""Prometheus metrics. Each worker returns the sums of all workers.

Labels have few values, and no client can choose them: a path without a route is `none`, and so is a method that no
route has. docs/observability.md lists every metric. A test compares the list.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from ipaddress import ip_address

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, ProcessCollector, generate_latest
from prometheus_client import values as prometheus_values
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from app import __version__
from app.config import get_settings
from app.errors import CredentialMissing, NotAuthenticated, NotFound
from app.observability import multiprocess

if multiprocess.shared_folder() is not None:
    # Stored in one set of files per worker place, not per process id. So replaced workers add no files, and counters of
    # a killed worker continue.
    prometheus_values.ValueClass = prometheus_values.MultiProcessValue(multiprocess.place)
prometheus_client.disable_created_metrics()

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NONE = "none"

_registry = CollectorRegistry()
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

_requests = Counter(
    "http_requests", "Completed requests by route template.", ["method", "route", "status"], registry=_registry
)
_request_seconds = Histogram(
    "http_request_duration_seconds",
    "Seconds from the head of a request to the end of its response.",
    ["method", "route"],
    buckets=_SECONDS,
    registry=_registry,
)
_batch_size = Histogram("batch_size", "Requests in a batch.", ["queue"], buckets=_SIZES, registry=_registry)
_batch_seconds = Histogram(
    "batch_duration_seconds", "Seconds that a batch took.", ["queue"], buckets=_SECONDS, registry=_registry
)
_wait_seconds = Histogram(
    "batch_wait_seconds", "Seconds that requests waited for a batch.", ["queue"], buckets=_SECONDS, registry=_registry
)
_connections = Gauge(
    "database_connections_in_use",
    "Connections of a pool in use.",
    ["pool"],
    multiprocess_mode="livesum",
    registry=_registry,
)
_pool_size = Gauge(
    "database_pool_size", "Maximum connections of a pool.", ["pool"], multiprocess_mode="livesum", registry=_registry
)
_security_events = Counter(
    "security_events",
    "Security events such as sign-ins and failures, listed in app/models/security_event.py.",
    ["event"],
    registry=_registry,
)
_replica_batches = Counter(
    "replica_batches",
    "Batches of reads by outcome: `replica`, or the reason why the primary was read.",
    ["outcome"],
    registry=_registry,
)
_limits_reached = Counter(
    "limits_reached", "Attempts refused by brute-force protection.", ["limit"], registry=_registry
)
_task_runs = Counter("background_task_runs", "Runs of background tasks.", ["task", "outcome"], registry=_registry)
_webhook_attempts = Counter(
    "webhook_attempts", "Attempts to deliver an event to a webhook, by outcome.", ["outcome"], registry=_registry
)
_database_up = Gauge(
    "database_up",
    "1 if the database answered the last check of every process, else 0.",
    multiprocess_mode="livemin",
    registry=_registry,
)
_streams = Gauge("live_streams", "Open live streams.", multiprocess_mode="livesum", registry=_registry)
_mails = Gauge(
    "outgoing_mails",
    "Mails in the outbox: `waiting` to be sent, or `given_up`.",
    ["state"],
    multiprocess_mode="livemostrecent",
    registry=_registry,
)
_oldest_mail = Gauge(
    "outgoing_mails_oldest_age_seconds",
    "Age of the oldest waiting mail; 0 if none waits.",
    multiprocess_mode="livemostrecent",
    registry=_registry,
)


# Labels have few values, and no client can choose them, so there are at most about 1,500 entries of 200 bytes.
@lru_cache(maxsize=2000)
def _of_route(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    """The metrics of a route.

    Cached, because looking up the labels takes longer than counting.
    """
    return _requests.labels(method, route, status or NONE), _request_seconds.labels(method, route)


def request(method: str, route: str | None, status: int, seconds: float) -> None:
    """Count a request.

    `route` is the template of its path; status 0 means that there was no response.
    """
    answered, duration = _of_route(method if method in METHODS else NONE, route or NONE, status)
    answered.inc()
    duration.observe(seconds)


class Batches:
    """The metrics of one batch queue."""

    def __init__(self, name: str) -> None:
        self._size = _batch_size.labels(name)
        self._seconds = _batch_seconds.labels(name)
        self._wait = _wait_seconds.labels(name)

    def observe_batch(self, waited_seconds: Sequence[float], seconds: float) -> None:
        """Count a batch of requests that waited for this long each."""
        self._size.observe(len(waited_seconds))
        self._seconds.observe(seconds)
        for waited in waited_seconds:  # 1 to 3 µs each. A page takes 180.
            self._wait.observe(waited)


class Pool:
    """The metrics of one pool of connections."""

    def __init__(self, name: str, size: int) -> None:
        _pool_size.labels(name).set(size)
        self._in_use = _connections.labels(name)
        self._in_use.set(0)

    def borrowed(self) -> None:
        self._in_use.inc()

    def returned(self) -> None:
        self._in_use.dec()


def replica_batch(outcome: str) -> None:
    """Count a batch of reads; `outcome` is a `Result` of app/database/replica.py."""
    _replica_batches.labels(outcome).inc()


def security_event(event: str) -> None:
    """Count an event of app/security/audit_log.py."""
    _security_events.labels(event).inc()


def limit_reached(limit: str) -> None:
    """Count an attempt refused by a limit of app/security/attempt_limits.py.

    `limit` is the name of the limit.
    """
    _limits_reached.labels(limit).inc()


class TaskRuns:
    """The metrics of one background task.

    They start at 0, so that the first failure is an increase.
    """

    def __init__(self, task: str) -> None:
        self._succeeded = _task_runs.labels(task, "succeeded")
        self._failed = _task_runs.labels(task, "failed")

    def count(self, *, is_success: bool) -> None:
        (self._succeeded if is_success else self._failed).inc()


def database_check(*, is_up: bool) -> None:
    """Record whether the database answered."""
    _database_up.set(is_up)


def streams(count: int) -> None:
    """Record the number of open live streams."""
    _streams.set(count)


def outbox(waiting: int, given_up: int, oldest_age_seconds: float) -> None:
    """Record the mails in the outbox."""
    _mails.labels("waiting").set(waiting)
    _mails.labels("given_up").set(given_up)
    _oldest_mail.set(oldest_age_seconds)


def authorize(authorization: str, client_address: str | None) -> None:
    """Require `METRICS_TOKEN` in an Authorization header.

    Without that setting, only callers on the same machine are allowed, and only in development. Raises `NotFound`,
    `CredentialMissing` or `NotAuthenticated`.
    """
    settings = get_settings()
    if settings.metrics_token is None:
        if settings.environment == "production" or not _is_this_machine(client_address):
            raise NotFound
        return
    scheme, _, given = authorization.partition(" ")
    expected = settings.metrics_token.get_secret_value()
    if scheme.lower() != "bearer":
        raise CredentialMissing
    if not secrets.compare_digest(given.encode(), expected.encode()):
        raise NotAuthenticated


def _is_this_machine(address: str | None) -> bool:
    try:
        return ip_address(address or "").is_loopback
    except ValueError:
        return False


def render() -> bytes:
    """Return all metrics in Prometheus's text format."""
    return generate_latest(_AllWorkers())


class _AllWorkers(Collector):
    """The summed metrics of all workers, and the process metrics of each worker."""

    def collect(self) -> Iterable[Metric]:
        running = multiprocess.running_workers()
        folder = multiprocess.shared_folder()
        if folder is None:
            yield from _registry.collect()
        else:
            yield from MultiProcessCollector(None, str(folder)).collect()
        yield from _processes(running)
        build = Metric("build_info", "The running version; always 1.", "gauge")
        build.add_sample("build_info", {"version": __version__}, 1)
        yield build


def _processes(running: Mapping[int, int]) -> Iterable[Metric]:
    """Memory, CPU time and open files of each worker, read from /proc (Linux only)."""
    found: dict[str, Metric] = {}
    for place, process_id in sorted(running.items()):
        for metric in ProcessCollector(pid=partial(str, process_id), registry=None).collect():
            together = found.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
            for sample in metric.samples:
                together.add_sample(sample.name, {"worker": str(place)}, sample.value)
    return found.values()


def webhook_attempt(*, is_success: bool) -> None:
    """Count an attempt to deliver an event."""
    _webhook_attempts.labels("success" if is_success else "failure").inc()
