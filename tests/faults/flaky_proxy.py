"""A proxy in front of a TCP server that lets connections down when told, as restarted ones do."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from select import select
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread

BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
DROPPED = b""


class FlakyProxy(ThreadingTCPServer):
    """Passes connections on to a port of this machine.

    While there are `answers`, each new connection gets one of them in place of the server's, after
    what it asks for has come; with the last of them `recovered` is called.
    """

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.behind = ("127.0.0.1", port)
        self.answers: deque[bytes] = deque()
        self.recovered: Callable[[], object] = lambda: None
        self.open: set[socket.socket] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def cut(self) -> None:
        """Let down all connections that are open."""
        for one in list(self.open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


class _Connection(BaseRequestHandler):
    server: FlakyProxy

    def handle(self) -> None:
        client: socket.socket = self.request
        if self.server.answers:
            answer = self.server.answers.popleft()
            client.recv(1 << 16)
            client.sendall(answer)
            if not self.server.answers:
                self.server.recovered()
            return
        with socket.create_connection(self.server.behind) as behind, suppress(OSError):
            self.server.open.add(client)
            other = {client: behind, behind: client}
            while True:
                for ready in select(list(other), [], [])[0]:
                    data = ready.recv(1 << 16)
                    if not data:
                        return
                    other[ready].sendall(data)

    def finish(self) -> None:
        self.server.open.discard(self.request)


@contextmanager
def flaky_proxy(port: int) -> Iterator[FlakyProxy]:
    """Start a proxy in front of a port."""
    with FlakyProxy(port) as proxy:
        Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
        yield proxy
        proxy.cut()
        proxy.shutdown()
