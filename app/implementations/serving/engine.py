"""The engine: starts the core, is the front, and ends with it."""

import asyncio
import logging
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from app.implementations.serving.core_link import CoreLink
from app.implementations.serving.front import Front
from app.implementations.serving.http_server import HttpServer
from app.implementations.serving.messages import MOST_RUNNING

logger = logging.getLogger(__name__)

MOST_WAITING = 256
MAX_BODY_BYTES = 16 * 1024 * 1024  # a million token ids are 7 MB
GRACE_SECONDS = 6.0  # for running requests after SIGTERM; the supervisor's own patience is eight
CORE_MODULE = "app.processes.engine_core"


@dataclass(frozen=True, slots=True)
class EngineOptions:
    base_model: str  # what it is asked for: a base model's name, or the version's that is served by itself
    folder: Path
    base_folder: Path | None  # below a label head's adapter, which then is in ``folder``
    host: str
    port: int
    threads: int
    precision: str
    kv_bytes: int
    adapter_bytes: int
    kernels: Path | None  # where native ones are kept; None: torch's
    secret: str | None


def run_engine(options: EngineOptions) -> int:
    """Serve until SIGTERM or SIGINT (0), or until the core is lost (1)."""
    return asyncio.run(_serve(options))


async def _serve(options: EngineOptions) -> int:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    link = CoreLink()
    tokenizer = Tokenizer.from_file(str(options.folder / "tokenizer.json"))
    front = Front(options.base_model, tokenizer, link, options.secret, MOST_RUNNING + MOST_WAITING)
    server = HttpServer(
        front.handle, max_body_bytes=MAX_BODY_BYTES, max_connections=2 * (MOST_RUNNING + MOST_WAITING)
    )
    try:
        port = await server.start(options.host, options.port)
    except OSError as error:
        logger.error("cannot listen on %s port %d: %s", options.host, options.port, error.strerror)
        return 1
    core, connection = _start_core(options)
    lost = False
    listening = asyncio.ensure_future(link.listen(connection))
    try:
        logger.info("engine of %s on http://%s:%d", options.base_model, options.host, port)
        await _first_of(stopped, link.lost)
        front.draining = True
        server.stop_listening()
        lost = link.lost.is_set()
        if lost:
            logger.error("the core has ended; so does the engine")
        # With the core lost, all have been told so, and that is on its way to them.
        async with asyncio.timeout(GRACE_SECONDS):
            await link.idle.wait()
    except TimeoutError:
        logger.warning("%d requests are cut short", link.active)
    finally:
        await server.close()
        link.close()
        await asyncio.to_thread(_end, core)
        await listening
    return 1 if lost else 0


def _start_core(options: EngineOptions) -> tuple["subprocess.Popen[bytes]", socket.socket]:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", CORE_MODULE, "--socket", str(theirs.fileno())]
    command += ["--folder", str(options.folder), "--threads", str(options.threads)]
    command += [] if options.base_folder is None else ["--base-folder", str(options.base_folder)]
    command += ["--precision", options.precision]
    command += ["--kv-bytes", str(options.kv_bytes), "--adapter-bytes", str(options.adapter_bytes)]
    command += [] if options.kernels is None else ["--kernels", str(options.kernels)]
    with theirs:
        core = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    return core, ours


def _end(core: "subprocess.Popen[bytes]") -> None:
    """It ends by itself after its step, its socket being closed."""
    try:
        core.wait(1.0)
    except subprocess.TimeoutExpired:
        core.kill()
        core.wait()


async def _first_of(*events: asyncio.Event) -> None:
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
