"""Python's floor: two uvloop protocols back to back, that pass on what comes and look at none of it.

`python -m bench.floor PORT UPSTREAM_PORT`
"""

import asyncio
import sys
from typing import cast

import uvloop


class Near(asyncio.Protocol):
    """The client's side of one connection."""

    def __init__(self, upstream: int):
        self._upstream = upstream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._early: list[bytes] = []
        self._far: asyncio.Transport | None = None
        self._opening = asyncio.create_task(self._open())

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        self._far, _ = await loop.create_connection(lambda: Far(self.transport), "127.0.0.1", self._upstream)
        self._far.writelines(self._early)

    def data_received(self, data: bytes) -> None:
        if self._far is None:
            self._early.append(data)
        else:
            self._far.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self._far is not None:
            self._far.close()


class Far(asyncio.Protocol):
    def __init__(self, near: asyncio.Transport):
        self._near = near

    def data_received(self, data: bytes) -> None:
        self._near.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._near.close()


async def main(port: int, upstream: int) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Near(upstream), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
