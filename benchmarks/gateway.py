"""What the gateway costs: ``python -m benchmarks.gateway``.

The service's own web process answers ``POST /v1/chat/completions`` to an API key; beside it, under the same
server with as many threads, one route of plain Flask sends the same bytes to the same engine. The engine is a
stub, so that nothing is measured but what lies in front of it. One after the other, in several rounds:

- latency: one client, one request after the other on one connection.
- throughput: as many clients at once as ``--clients`` says.
- streams: ``--streams`` chats at once as server-sent events through one web process, and what it then holds.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx
import psutil

from benchmarks.arithmetic import markdown_table, ratios, shown, spread
from benchmarks.processes import ROOT, say, tail

MODEL = "smollm2-135m-instruct"
CONTESTANTS = ("ours", "bare")
WARM = 50  # requests before the first reading
PAUSE = 0.4  # seconds between two events of a stream
START_SECONDS = 60.0
PATH = "/v1/chat/completions"
BODY = {
    "model": MODEL,
    "messages": [
        {"role": "system", "content": "You answer briefly and in the tone of the company."},
        {"role": "user", "content": "How long do I have to return an item that does not fit?"},
    ],
    "max_tokens": 16,
    "temperature": 0,
}


def main() -> None:
    options = _options()
    latency: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    throughput: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory(prefix="bench-gateway-") as name:
        bench = Bench(Path(name), options.models_dir)
        with bench.engine(0) as engine, bench.ours(engine) as ours, bench.bare(engine, ours) as bare:
            sites = {"ours": ours, "bare": bare}
            for site in sites.values():
                site.ask(WARM)
            for number in range(1, options.rounds + 1):
                for contestant, site in sites.items():
                    latency[contestant].append(1000 * median(site.ask(options.requests)))
                    throughput[contestant].append(site.ask_at_once(options.clients, options.requests))
                say(f"round {number}: {latency} {throughput}")
        with bench.engine(PAUSE) as engine, bench.ours(engine, options.streams) as ours:
            before = ours.resident_bytes()
            seconds, most = ours.stream_at_once(options.streams)
    print(table(latency, throughput, options.clients))
    print(
        f"\n{options.streams} streams at once through one process: {most / 1e6:.0f} MB "
        f"({before / 1e6:.0f} before), all done after {seconds:.1f} s"
    )


class Site:
    """One web process and how it is asked."""

    def __init__(self, port: int, key: str, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self._key = key
        self._process = process

    def ask(self, requests: int) -> Sequence[float]:
        """Seconds of each."""
        return self._talk(self._bytes(BODY), requests)

    def ask_at_once(self, clients: int, requests: int) -> float:
        """Requests a second."""
        sent = self._bytes(BODY)
        started = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            done = list(pool.map(lambda _: len(self._talk(sent, requests // clients)), range(clients)))
        return sum(done) / (time.perf_counter() - started)

    def stream_at_once(self, streams: int) -> tuple[float, int]:
        """Seconds until all are done, and the most bytes that the process held."""
        sent = self._bytes({**BODY, "stream": True}, close=True)
        over = threading.Event()
        most = 0

        def watch() -> None:
            nonlocal most
            while not over.wait(0.1):
                most = max(most, self.resident_bytes())

        watcher = threading.Thread(target=watch)
        watcher.start()
        started = time.perf_counter()
        try:
            with ThreadPoolExecutor(streams) as pool:
                answers = list(pool.map(lambda _: self._until_closed(sent), range(streams)))
        finally:
            over.set()
            watcher.join()
        faulty = [answer for answer in answers if b"data: [DONE]" not in answer]
        if faulty:
            raise SystemExit(f"{len(faulty)} of {streams} streams did not end well; the first:\n{faulty[0]!r}")
        return time.perf_counter() - started, most

    def resident_bytes(self) -> int:
        """Of gunicorn's one worker."""
        [worker] = psutil.Process(self._process.pid).children()
        return int(worker.memory_info().rss)

    def _bytes(self, body: Mapping[str, object], close: bool = False) -> bytes:
        data = json.dumps(body).encode()
        head = [
            f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: Bearer {self._key}\r\n",
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n",
            "Connection: close\r\n" if close else "",
        ]
        return "".join(head).encode() + b"\r\n" + data

    def _talk(self, sent: bytes, requests: int) -> Sequence[float]:
        seconds = []
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(requests):
                started = time.perf_counter()
                connection.sendall(sent)
                self._read(connection)
                seconds.append(time.perf_counter() - started)
        return seconds

    def _read(self, connection: socket.socket) -> None:
        """One answer that says its length."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._some(connection)
        head, _, body = data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"the web process answered:\n{data.decode(errors='replace')}")
        lines = head.lower().split(b"\r\n")
        left = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")) - len(body)
        while left > 0:
            left -= len(self._some(connection))

    def _some(self, connection: socket.socket) -> bytes:
        data = connection.recv(65536)
        if not data:
            raise SystemExit("the web process closed the connection")
        return data

    def _until_closed(self, sent: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(sent)
            return b"".join(iter(lambda: connection.recv(65536), b""))


class Bench:
    def __init__(self, folder: Path, models_dir: Path) -> None:
        self._folder = folder
        self._models_dir = models_dir

    @contextmanager
    def engine(self, pause: float) -> Iterator[str]:
        """Its URL."""
        port = _free_port()
        command = [sys.executable, "-m", "benchmarks.stub_engine", "--port", str(port), "--pause", str(pause)]
        url = f"http://127.0.0.1:{port}"
        with self._running("stub", command, {}, f"{url}/last"):
            yield url

    @contextmanager
    def ours(self, engine: str, streams: int = 32) -> Iterator[Site]:
        place = self._folder / "ours"
        variables = {
            **{f"{name}_DIR": str(place / name.lower()) for name in ("INSTANCE", "DATA", "RESULTS")},
            "MODELS_DIR": str(self._models_dir),
            "ENGINES": json.dumps({MODEL: engine}),
            "ADMIN_PASSWORD": "a password of the bench",
            "RATE_LIMIT": "100000000 per minute",
            "WEB_THREADS": str(2 * streams),  # half of them may stream
            "FLASK_APP": "run",
            "FLASK_SKIP_DOTENV": "1",
        }
        flask = [sys.executable, "-m", "flask"]
        self._do([*flask, "db", "upgrade"], variables)
        key = self._do([*flask, "keys", "create", "--project", "default", "--name", f"bench-{streams}"], variables)
        worker = ["--worker-class", "app.processes.web.WebWorker"]
        with self._web(
            "ours", "app:create_app()", [*worker, "--threads", str(2 * streams)], variables, key
        ) as site:
            yield site

    @contextmanager
    def bare(self, engine: str, ours: Site) -> Iterator[Site]:
        ours.ask(1)
        asked = httpx.get(f"{engine}/last").json()
        sent = json.dumps({name: value for name, value in asked.items() if not name.startswith("stream")})
        variables = {"BARE_ENGINE": engine, "BARE_BODY": sent}
        threads = ["--worker-class", "gthread", "--threads", "64"]
        with self._web("bare", "benchmarks.bare_route:app", threads, variables, "") as site:
            yield site

    @contextmanager
    def _web(
        self, name: str, application: str, options: Sequence[str], variables: Mapping[str, str], key: str
    ) -> Iterator[Site]:
        port = _free_port()
        command = [sys.executable, "-m", "gunicorn", application, "--bind", f"127.0.0.1:{port}", *options]
        command += ["--workers", "1", "--no-control-socket", "--log-level", "warning"]
        with self._running(name, command, variables, f"http://127.0.0.1:{port}/") as process:
            yield Site(port, key, process)

    @contextmanager
    def _running(
        self, name: str, command: Sequence[str], variables: Mapping[str, str], url: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        log = self._folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **variables}, stdout=output, stderr=subprocess.STDOUT
            )
            try:
                _wait(url, process, log)
                yield process
            except SystemExit as end:
                raise SystemExit(f"{end}\n{tail(log)}") from None
            finally:
                process.terminate()
                process.wait()

    def _do(self, command: Sequence[str], variables: Mapping[str, str]) -> str:
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}:\n{done.stderr}")
        return done.stdout.strip()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            httpx.get(url)
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise SystemExit(f"{url} does not answer; the log ends:\n{tail(log)}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def table(latency: Mapping[str, Sequence[float]], throughput: Mapping[str, Sequence[float]], clients: int) -> str:
    ours, bare = latency["ours"], latency["bare"]
    more = spread([mine - other for mine, other in zip(ours, bare, strict=True)])
    share = ratios(throughput["ours"], throughput["bare"])
    rows = [
        ["latency of one client, ms", shown(spread(ours), 2), shown(spread(bare), 2), f"{shown(more, 2)} more"],
        [
            f"requests/s of {clients} clients",
            *(shown(spread(throughput[name])) for name in CONTESTANTS),
            f"{shown(share.scaled(100))} %",
        ],
    ]
    return markdown_table(["", *CONTESTANTS, "ours beside it"], rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--models_dir", type=Path, default=ROOT / "models", help=f"where base/{MODEL} is")
    return parser.parse_args()


if __name__ == "__main__":
    main()
