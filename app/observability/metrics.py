"""What is counted and timed, and how Prometheus reads it: of all workers together, whichever of them is asked.

Labels have few values, none of which a client can choose: a path without a route is `none`, like a method that no
route has. docs/observability.md lists every metric; a test compares.
"""

import collections
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, ProcessCollector, generate_latest
from prometheus_client import values as prometheus_values
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from app.observability import multiprocess

if multiprocess.shared_folder() is not None:
    # Kept in files, by place and not by process id: however often workers are replaced, there are as many files as
    # workers, and what a killed one counted is counted on.
    prometheus_values.ValueClass = prometheus_values.MultiProcessValue(multiprocess.place)  # type: ignore[no-untyped-call]
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NONE = "none"

_registry = CollectorRegistry()
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

_requests = Counter(
    "http_requests", "Requests answered, by route template.", ["method", "route", "status"], registry=_registry
)
_request_seconds = Histogram(
    "http_request_duration_seconds",
    "From the head of a request to the end of its answer.",
    ["method", "route"],
    buckets=_SECONDS,
    registry=_registry,
)
_batch_size = Histogram("batch_size", "Hot requests that shared a turn.", ["queue"], buckets=_SIZES, registry=_registry)
_batch_seconds = Histogram(
    "batch_duration_seconds", "Turns of a lane.", ["queue"], buckets=_SECONDS, registry=_registry
)
_wait_seconds = Histogram(
    "batch_wait_seconds", "What hot requests waited for their turn.", ["queue"], buckets=_SECONDS, registry=_registry
)
_connections = Gauge(
    "database_connections_in_use",
    "Connections borrowed from a pool at the moment.",
    ["pool"],
    multiprocess_mode="livesum",
    registry=_registry,
)
_pool_size = Gauge(
    "database_pool_size", "Most connections of a pool.", ["pool"], multiprocess_mode="livesum", registry=_registry
)
_security_events = Counter(
    "security_events",
    "Sign-ins, failures and the like; app/models/security_event.py has the list.",
    ["event"],
    registry=_registry,
)
_replica_batches = Counter(
    "replica_batches",
    "Turns of readings, by what became of the replica.",
    ["outcome"],
    registry=_registry,
)
_limits_reached = Counter("limits_reached", "Tries refused by a limit on guessing.", ["limit"], registry=_registry)


# Labels have few values, none of which a client can choose, so there are at most some 1,500 of 200 bytes.
@lru_cache(maxsize=2000)
def _of_route(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    """Looking the labels up takes longer than counting."""
    return _requests.labels(method, route, status or NONE), _request_seconds.labels(method, route)


def request(method: str, route: str | None, status: int, seconds: float) -> None:
    """Count a request. `route` is the template of its path; status 0 means that there was no answer."""
    answered, duration = _of_route(method if method in METHODS else NONE, route or NONE, status)
    answered.inc()
    duration.observe(seconds)


class BatchQueue:
    """The metrics of one lane."""

    def __init__(self, name: str) -> None:
        self._size = _batch_size.labels(name)
        self._seconds = _batch_seconds.labels(name)
        self._wait = _wait_seconds.labels(name)

    def turn(self, waited_seconds: Sequence[float], seconds: float) -> None:
        """Count a turn that those who waited so long shared."""
        self._size.observe(len(waited_seconds))
        self._seconds.observe(seconds)
        _observe_all(self._wait, waited_seconds)


def _observe_all(histogram: Histogram, seconds: Sequence[float]) -> None:
    """As `observe` of each, which writes two numbers each time."""
    for place, count in collections.Counter(bisect_left(_SECONDS, value) for value in seconds).items():
        histogram._buckets[place].inc(count)
    histogram._sum.inc(sum(seconds))


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
    """Count a turn of readings; `outcome` is one of app/database/replica.py's."""
    _replica_batches.labels(outcome).inc()


def security_event(event: str) -> None:
    """Count an event of app/security/audit_log.py."""
    _security_events.labels(event).inc()


def limit_reached(limit: str) -> None:
    """Count a try that a limit of app/security/attempt_limits.py refused; `limit` is its name."""
    _limits_reached.labels(limit).inc()


def render() -> bytes:
    """Everything, in Prometheus's text format."""
    return generate_latest(_AllWorkers())


class _AllWorkers(Collector):
    """What the workers counted, summed; beside it their processes, each by its place."""

    def collect(self) -> Iterable[Metric]:
        running = multiprocess.running_workers()
        folder = multiprocess.shared_folder()
        if folder is None:
            yield from _registry.collect()
        else:
            # What a dead worker has in use, it has no longer.
            files = [
                str(path)
                for path in folder.glob("*.db")
                if not path.name.startswith("gauge_live") or int(path.stem.rpartition("_")[2]) in running
            ]
            yield from MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        yield from _processes(running)


def _processes(running: Mapping[int, int]) -> Iterable[Metric]:
    """Memory, processor time and open files of each worker; on Linux only, where /proc tells."""
    found: dict[str, Metric] = {}
    for place, process_id in sorted(running.items()):
        for metric in ProcessCollector(pid=partial(str, process_id), registry=None).collect():
            together = found.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
            for sample in metric.samples:
                together.add_sample(sample.name, {"worker": str(place)}, sample.value)
    return found.values()
