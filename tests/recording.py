"""A TLS proxy that keeps every byte that hospitals send: between their nodes and the coordinator's nginx."""

from __future__ import annotations

import socket
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Recording:
    """What was sent upwards, a stream per connection."""

    upwards: list[bytes]

    def requests(self) -> list[tuple[str, bytes]]:
        """(path, body) of every HTTP request, connection by connection."""
        return [request for stream in self.upwards for request in _requests(stream)]


class RecordingProxy:
    """Listens on loopback with the coordinator's own certificate; each connection's bytes upwards are kept."""

    def __init__(self, coordinator: Path, port: int):
        self.upwards: list[bytearray] = []
        self._to = port
        self._inside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._inside.load_cert_chain(coordinator / "server.crt", coordinator / "server.key")
        self._outside = ssl.create_default_context(cafile=str(coordinator / "ca.crt"))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(raw,), daemon=True).start()

    def _carry(self, raw: socket.socket) -> None:
        try:
            with (
                self._inside.wrap_socket(raw, server_side=True) as inner,
                socket.create_connection(("127.0.0.1", self._to)) as plain,
                self._outside.wrap_socket(plain, server_hostname="localhost") as outer,
            ):
                kept = bytearray()
                self.upwards.append(kept)
                down = threading.Thread(target=_pump, args=(outer, inner, None), daemon=True)
                down.start()
                _pump(inner, outer, kept)
                down.join()
        except OSError:
            raw.close()


def _pump(source: ssl.SSLSocket, sink: ssl.SSLSocket, kept: bytearray | None) -> None:
    try:
        while data := source.recv(65536):
            if kept is not None:
                kept.extend(data)
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue


def _requests(stream: bytes) -> list[tuple[str, bytes]]:
    found = []
    while stream:
        head, _, rest = stream.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = int(headers.get("content-length", 0))
        found.append((lines[0].split(" ")[1], rest[:length]))
        stream = rest[length:]
    return found
