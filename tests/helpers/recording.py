"""A TLS proxy that keeps every byte that hospitals send: between their nodes and the coordinator's nginx."""

from __future__ import annotations

import asyncio
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

SETTLE_S = 0.2


@dataclass(frozen=True)
class Recording:
    """What was sent upwards, a stream per connection."""

    upwards: list[bytes]

    def requests(self) -> list[tuple[str, bytes]]:
        """(path, body) of every HTTP request, connection by connection."""
        return [request for stream in self.upwards for request in _requests(stream)]


class RecordingProxy:
    """Listens on loopback with the coordinator's own certificate; each connection's bytes upwards are kept.

    One thread carries every connection: OpenSSL's connections must not be read and written from two at once.
    """

    def __init__(self, coordinator: Path, port: int):
        self.upwards: list[bytearray] = []
        self._to = port
        self._inside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._inside.load_cert_chain(coordinator / "server.crt", coordinator / "server.key")
        self._outside = ssl.create_default_context(cafile=str(coordinator / "ca.crt"))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        listening = asyncio.start_server(self._carry, "127.0.0.1", 0, ssl=self._inside)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result()
        self.port = int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Take no more connections and drop those that are open."""
        asyncio.run_coroutine_threadsafe(self._finish(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _finish(self) -> None:
        self._server.close()
        carrying = asyncio.all_tasks() - {asyncio.current_task()}
        for task in carrying:
            task.cancel()
        await asyncio.gather(*carrying, return_exceptions=True)
        await asyncio.sleep(SETTLE_S)  # sockets are closed by the loop's next turns

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept = bytearray()
        self.upwards.append(kept)
        ends = [writer]
        try:
            up, down = await asyncio.open_connection(
                "127.0.0.1", self._to, ssl=self._outside, server_hostname="localhost"
            )
            ends.append(down)
            await asyncio.gather(_pump(reader, down, kept), _pump(up, writer, None))
        except OSError:
            return
        finally:
            for end in ends:
                end.transport.abort()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, kept: bytearray | None) -> None:
    """Carry bytes until one end closes, then close the other."""
    try:
        while data := await source.read(65536):
            if kept is not None:
                kept.extend(data)
            sink.write(data)
            await sink.drain()
    except OSError:
        pass
    finally:
        sink.close()


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
