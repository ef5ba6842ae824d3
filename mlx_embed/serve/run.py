"""A server from its start to its end: listening at once, models in the background, and no request lost at SIGTERM."""

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

import uvicorn

from mlx_embed.serve.app import application
from mlx_embed.serve.models import Served
from mlx_embed.serve.protocol import timed_protocol
from mlx_embed.serve.service import Service

logger = logging.getLogger("mlx_embed")

BACKLOG = 2048
# After the grace, for what is then answered that it was not computed.
ANSWER_SECONDS = 2


class Server(uvicorn.Server):
    """An HTTP server of a service, whose models are loaded while it already listens.

    Attributes:
        error: why the models could not be loaded, and the server therefore ended.
    """

    def __init__(self, service: Service, load: Callable[[], Sequence[Served]]) -> None:
        """Take a service without models, and what loads them."""
        self.service = service
        self.error: BaseException | None = None
        self._load = load
        limits = service.limits
        self._grace = threading.Timer(limits.grace_seconds, service.models.close)
        self._grace.daemon = True
        super().__init__(
            uvicorn.Config(
                application(service),
                http=timed_protocol(limits.read_seconds),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=int(limits.idle_seconds),
                timeout_graceful_shutdown=int(limits.grace_seconds) + ANSWER_SECONDS,
            )
        )

    def serve_on(self, listening: socket.socket) -> None:
        """Serve until `stop`, or a signal where this is the main thread; raise what kept the models from loading."""
        try:
            self.run(sockets=[listening])
        finally:
            self._grace.cancel()
            self.service.models.close()
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """Take no new requests and end when those that run are answered; a second time, end at once."""
        self.force_exit = self.service.stopping
        self.service.stopping = self.should_exit = True
        if not self.force_exit:
            self._grace.start()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """In place of uvicorn's, which ends the process by the signal again, and so never with status 0."""
        loop = asyncio.get_running_loop()
        caught = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        for number in caught:
            loop.add_signal_handler(number, self.stop)
        threading.Thread(target=self._loaded, args=(loop,), name="load", daemon=True).start()
        yield
        for number in caught:
            loop.remove_signal_handler(number)

    def _loaded(self, loop: asyncio.AbstractEventLoop) -> None:
        """Load the models, have each compute something, and serve them."""
        try:
            models = self._load()
            for model in models:
                model.warm()
                self.service.metrics.watch(model)
            self.service.models.add(models)
            logger.info("Ready: %s.", ", ".join(model.id for model in models))
        except BaseException as error:
            self.error = error
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self.stop)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        OSError: an unknown host, or a port that is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        raise OSError(f"Cannot listen on {host}, port {port}: {error.strerror or error}.") from error
    listening.setblocking(False)
    return listening
