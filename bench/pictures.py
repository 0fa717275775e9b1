"""The cost of pictures: uploads, and pages of posts with pictures against pages of posts without.

    python -m bench.pictures

It uses the small data set of the benchmark. `docs/benchmarks.md` has the figures.
"""

import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from PIL import Image

from bench import data, load
from bench.contestants import Server, running
from bench.data import Dataset
from bench.environment import BenchError, prepare
from bench.measured import parse_wrk
from bench.scenarios import OURS

WIDTH, HEIGHT = 4_000, 3_000
BOUNDARY = "part"
SEQUENTIAL_UPLOADS, UPLOADS_AT_ONCE = 10, 50
# Clients that upload one picture after the other, and for how long.
CLIENTS, UPLOAD_SECONDS = 8, 15.0
ROUNDS, RUN_SECONDS, CONNECTIONS = 5, 4, 64
SAMPLE_SECONDS = 0.02

# Every post of every second author shows a picture, with a text of average length.
_ADD_PICTURES = """
    INSERT INTO media (owner_id, name, width, height, bytes, alt, blurhash, post_id, position, unused_since)
    SELECT owner_id, md5(id::text), 4000, 3000, 480000, 'Two boats on a lake, and a hill behind them',
        'LEHV6nWB2yk8pyo0adR*.7kCMdnj', id, 1, NULL
    FROM posts WHERE mod(owner_id, 2) = 1
"""
_REMOVE_PICTURES = ("DELETE FROM media", "DELETE FROM media_removals", "VACUUM (ANALYZE) posts")
_AUTHORS = """
    SELECT owner_id FROM posts WHERE published AND mod(owner_id, 2) = {parity}
    GROUP BY owner_id HAVING count(*) >= 10 ORDER BY hashint8(owner_id)
"""
_POSTS = "SELECT id FROM posts WHERE published AND mod(owner_id, 2) = {parity} ORDER BY hashint8(id)"


def main() -> None:
    load.require_programs()
    prepare()
    with data.server() as url, TemporaryDirectory(prefix="bench-media-") as folder:
        dataset = data.open_dataset(url, "S")
        dataset.execute(*_REMOVE_PICTURES)
        print(f"load average before: {psutil.getloadavg()[0]:.1f}")
        try:
            with running(OURS, dataset, MEDIA_ROOT=folder) as server:
                _measure_uploads(server, dataset)
            dataset.execute(_ADD_PICTURES, "VACUUM (ANALYZE) posts")
            with running(OURS, dataset, MEDIA_ROOT=folder) as server:
                _measure_pages(server, dataset)
        finally:
            dataset.execute(*_REMOVE_PICTURES)


def _measure_uploads(server: Server, dataset: Dataset) -> None:
    photo = _form(_photo())
    print(f"a photo of {WIDTH} x {HEIGHT} pixels, {len(photo) / 1e6:.1f} MB of JPEG")
    for token in dataset.reader_tokens[:4]:  # Both workers import and connect before it counts.
        _upload(server, token, photo)
    before, began_at = _spent(server), time.perf_counter()
    for token in dataset.reader_tokens[:SEQUENTIAL_UPLOADS]:
        if _upload(server, token, photo) != 201:
            raise BenchError("an upload was refused")
    seconds = (time.perf_counter() - began_at) / SEQUENTIAL_UPLOADS
    cpu = (_spent(server) - before) / SEQUENTIAL_UPLOADS
    print(f"one upload after the other: {cpu:.2f} s of CPU and {seconds:.2f} s each, without PostgreSQL")

    until = time.perf_counter() + UPLOAD_SECONDS

    def keep_uploading(number: int) -> int:
        count = 0
        while time.perf_counter() < until:
            count += _upload(server, dataset.reader_tokens[number], photo) == 201
        return count

    began_at = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        count = sum(pool.map(keep_uploading, range(CLIENTS)))
    print(f"{CLIENTS} clients: {count / (time.perf_counter() - began_at):.2f} uploads/s")

    with _highest_memory(server) as growth, ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
        tokens = dataset.reader_tokens[:UPLOADS_AT_ONCE]
        statuses = Counter(pool.map(lambda token: _upload(server, token, photo), tokens))
    print(f"{UPLOADS_AT_ONCE} uploads at once: {dict(statuses)}, a worker grew by at most {growth() / 1e6:.1f} MB")


def _photo() -> bytes:
    """Return a JPEG with the detail of a photo: noise at several scales."""
    scales = (8, 80, 800)
    channels = []
    for _ in range(3):
        channel = Image.new("L", (WIDTH, HEIGHT), 128)
        for width in scales:
            noise = Image.effect_noise((width, width * HEIGHT // WIDTH), 60)
            channel = Image.blend(channel, noise.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), 0.4)
        channels.append(channel)
    file = BytesIO()
    Image.merge("RGB", channels).save(file, "JPEG", quality=90)
    return file.getvalue()


def _form(content: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def _upload(server: Server, token: str, form: bytes) -> int:
    media_type = f"multipart/form-data; boundary={BOUNDARY}"
    headers = {"Authorization": f"Bearer {token}", "Content-Type": media_type}
    status, _, _ = server.request("POST", "/media", headers, form)
    return status


def _spent(server: Server) -> float:
    """Return the CPU seconds of the server so far, with those of decoders that have ended."""
    return load.spent(server.processes, with_ended=True)


@contextmanager
def _highest_memory(server: Server) -> Iterator[Callable[[], int]]:
    """Return how much the resident memory of the worker that grew most has grown at most during the block.

    Decoders are processes of their own, and do not count.
    """
    workers = server.process.children()
    before = {worker.pid: worker.memory_info().rss for worker in workers}
    growth, is_over = [0], threading.Event()

    def watch() -> None:
        while not is_over.wait(SAMPLE_SECONDS):
            growth[0] = max(growth[0], *(worker.memory_info().rss - before[worker.pid] for worker in workers))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: growth[0]
    finally:
        is_over.set()
        thread.join()


def _measure_pages(server: Server, dataset: Dataset) -> None:
    for name, statement, path in (
        ("pages of ten posts of an author", _AUTHORS, "/posts?limit=10&owner_id={}"),
        ("one post", _POSTS, "/posts/{}"),
    ):
        rows = [dataset.rows(statement.format(parity=parity)) for parity in (0, 1)]
        count = min(map(len, rows))
        without, with_pictures = (
            dataset.write(f"pictures-{parity}", [path.format(id_) for (id_,) in rows[parity][:count]])
            for parity in (0, 1)
        )
        for paths in (without, with_pictures):
            _measure(server, dataset, paths)  # Warms it up.
        ratios: list[tuple[float, float]] = []
        for number in range(ROUNDS):
            order = (without, with_pictures)[:: 1 if number % 2 else -1]
            found = {paths: _measure(server, dataset, paths) for paths in order}
            (rate, cpu), (rate_without, cpu_without) = found[with_pictures], found[without]
            ratios.append((rate / rate_without, cpu / cpu_without))
        rates, cpus = ([*column] for column in zip(*ratios, strict=True))
        print(
            f"{name}, with a picture on each / without: requests/s {_words(rates)}, CPU of a request {_words(cpus)}; "
            f"in the last round {rate:,.0f}/s and {rate_without:,.0f}/s, {cpu:.2f} and {cpu_without:.2f} ms"
        )


def _words(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})"


def _measure(server: Server, dataset: Dataset, paths: Path) -> tuple[float, float]:
    """Return the requests per second, and the milliseconds of CPU that the server and PostgreSQL took for each."""
    meter = load.Meter(server, load.postmaster_of(dataset))
    arguments = [str(dataset.readers_file), str(paths)]
    process = load.start_wrk(server, "get", arguments, connections=CONNECTIONS, seconds=RUN_SECONDS)
    counted = parse_wrk(load.finish(process, RUN_SECONDS))
    if counted.problem is not None:
        raise BenchError(counted.problem)
    cost = meter.cost()
    return counted.rate, 1000 * (cost.server + cost.postgres) / counted.requests


if __name__ == "__main__":
    main()
