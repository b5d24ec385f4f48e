"""A TCP proxy before a broker whose connections can be cut, and refused for as long as one likes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Proxy:
    """Listens where the embedded broker says it is to be found, and passes on to where it really is."""

    def __init__(self, port: int, target: tuple[str, int]) -> None:
        self._target, self._address = target, ("127.0.0.1", port)
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.n_accepted = 0

    @property
    def url(self) -> str:
        host, port = self._address
        return f"kafka://{host}:{port}"

    def start(self) -> None:
        listener = socket.create_server(self._address)
        self._listener, self._address = listener, listener.getsockname()
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self) -> None:
        """End every connection and take no new one until `start`."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = listener.accept()
                self.n_accepted += 1
                there = socket.create_connection(self._target)
                for source, target in ((here, there), (there, here)):
                    self._open.add(source)
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
        self._open.discard(source)
        source.close()


@contextlib.contextmanager
def proxied(target: tuple[str, int]) -> Iterator[Proxy]:
    proxy = Proxy(0, target)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.cut()
