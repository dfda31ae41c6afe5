"""One upstream call as LiteLLM makes it, over Weir's own HTTP session.

LiteLLM wraps whatever goes wrong in exceptions of its own, which lose the status, the headers and the cause; it asks
again after a broken connection; and it does not always close what it opened. Here, below it, all three are known.
"""

import re
from collections.abc import AsyncIterator, Mapping

import aiohttp
import httpx
import msgspec
from yarl import URL

from proxy.adapters.http import ask, refusal, rest_of
from proxy.adapters.token_body import by_tokens
from proxy.errors import Kind, ProviderError, redact
from proxy.provider import ProviderConfig
from proxy.sse import SSEDecoder

# The operator's fault, whatever the status: Gemini answers 400 to a wrong key, Anthropic to an empty account.
_OPERATORS_FAULT = (
    "api key not valid",
    "api_key_invalid",
    "api key expired",
    "user location is not supported",
    "credit balance is too low",
    "reached your specified api usage limits",
    "organization has been disabled",
)
# Google's Retry-After, which stands in the body alone.
_RETRY_DELAY = re.compile(r'"retryDelay":\s*"([0-9]+(?:[.][0-9]+)?)s"')


class UpstreamCall(httpx.AsyncBaseTransport):
    """A transport for one stream. `failure` is what went wrong, in our terms; `asked` whether the vendor was reached.

    The session brings the operator's proxy and CA settings, and its connections are shared by all streams.
    """

    def __init__(self, session: aiohttp.ClientSession, config: ProviderConfig):
        self._session = session
        self._config = config
        self._responses: list[aiohttp.ClientResponse] = []
        self.failure: ProviderError | None = None
        self.asked = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends one request. Whatever is not a success is raised as a ProviderError, and nothing is sent after it."""
        url, body = URL(str(request.url), encoded=True), await request.aread()
        response = await self._ask(request.method, url, request.headers, body, decompress=False)
        return httpx.Response(response.status, headers=response.headers, stream=_Body(self, response), request=request)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> None:
        """Sends one request for server-sent events, which `payloads` reads. Raises ProviderError for a refusal."""
        await self._ask("POST", URL(url), {name.lower(): value for name, value in headers.items()}, body)

    async def payloads(self) -> AsyncIterator[list[bytes]]:
        """The data of the server-sent events in the last answer. Raises ProviderError (cut) if it breaks off."""
        decoder, content = SSEDecoder(), by_tokens(self._responses[-1])
        try:
            while data := await content.readany():
                yield decoder.feed(data)
            yield list(filter(_is_whole, decoder.feed(b"\n\n")))  # some do not end the last line
        except (aiohttp.ClientError, OSError) as error:
            raise self.broke(error) from None
        except ValueError as error:
            raise self.fail(ProviderError(Kind.GARBLED, str(error))) from None

    def fail(self, failure: ProviderError) -> ProviderError:
        """Notes and returns the failure; the first one counts, since others only follow from it."""
        self.failure = self.failure or failure
        return self.failure

    def broke(self, error: Exception) -> ProviderError:
        said = redact(f"the connection broke: {error!r}", self._config.secrets())
        return self.fail(ProviderError(Kind.CUT, said))

    def close(self) -> None:
        """Ends what is still open, at once: the vendor stops generating. A connection read to its end stays usable."""
        for response in self._responses:
            response.close()

    async def _ask(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes, *, decompress: bool = True
    ) -> aiohttp.ClientResponse:
        if self.failure:
            raise self.failure
        self.asked = True
        try:
            response = await ask(self._session, self._config, method, url, headers, body, decompress=decompress)
        except ProviderError as error:
            raise self.fail(error) from None
        self._responses.append(response)
        if not 200 <= response.status < 300 or response.content_type == "text/html":
            raise await self._refused(response)
        return response

    async def _refused(self, response: aiohttp.ClientResponse) -> ProviderError:
        text = await rest_of(response)
        response.close()
        said = refusal(response, text, self._config)
        if said.kind is Kind.REJECTED and any(phrase in text.lower() for phrase in _OPERATORS_FAULT):
            said.kind = Kind.AUTH
        if said.retry_after is None and (told := _RETRY_DELAY.search(text)):
            said.retry_after = float(told[1])
        return self.fail(said)


class _Body(httpx.AsyncByteStream):
    """The body as it comes; a connection that breaks is a failure of the call."""

    def __init__(self, call: UpstreamCall, response: aiohttp.ClientResponse):
        self._call = call
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for data in self._response.content.iter_any():
                yield data
        except (aiohttp.ClientError, OSError) as error:
            raise self._call.broke(error) from None

    async def aclose(self) -> None:
        self._response.close()


def _is_whole(payload: bytes) -> bool:
    try:
        msgspec.json.decode(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return True
