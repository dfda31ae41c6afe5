"""A request to one of Weir's routes: for which Weir it is, under which id, and its body, which has limits."""

import asyncio
from typing import Any

from starlette import requests

from proxy.errors import RequestError
from proxy.request import parse_object
from proxy.weir import Weir


class Request(requests.Request):
    """Made by `Route`, which gives it its id; `Mount.attach` puts the rest into its `state`."""

    @property
    def id(self) -> str:
        return str(self.state.id)

    @property
    def weir(self) -> Weir:
        weir: Weir = self.state.weir
        return weir

    def is_traced(self) -> bool:
        """Whether an admin wants to be told what happens to it. Raises AccessError for somebody else's wish."""
        return bool(self.state.keys.traced(self))

    async def body(self) -> bytes:
        """The whole body. Raises RequestError: 413 as soon as it is known to be too large, 408 if it stops coming."""
        if not hasattr(self, "_body"):
            self._body = await self._received()
        return self._body

    async def json_object(self) -> dict[str, Any]:
        """The body as a JSON object. Raises RequestError (400, 408, 413)."""
        return parse_object(await self.body())

    async def _received(self) -> bytes:
        settings = self.weir.settings
        announced = self.headers.get("content-length", "")
        expected = int(announced) if announced.isdigit() else None
        if expected is not None and expected > settings.max_body:
            raise _too_large(settings.max_body)
        body, loop = bytearray(), asyncio.get_running_loop()
        try:
            async with asyncio.timeout(settings.stall) as patience:
                self.weir.bodies.add(patience)
                async for piece in self.stream():
                    body += piece
                    if len(body) > settings.max_body:
                        raise _too_large(settings.max_body)
                    if expected is None or len(body) < expected:
                        patience.reschedule(loop.time() + settings.stall)
        except TimeoutError:
            raise RequestError("the rest of the body did not come", status=408, code="body_timeout") from None
        finally:
            self.weir.bodies.discard(patience)
        return bytes(body)


def _too_large(limit: int) -> RequestError:
    return RequestError(f"the body is larger than {limit} bytes", status=413, code="body_too_large")
