"""How vendors fail behind LiteLLM: each failure is named, happens once, and leaves nothing running."""

import asyncio

import aiohttp
import pytest

from proxy.adapters.litellm_errors import failure
from proxy.errors import Kind
from proxy.events import Finish, TextDelta
from proxy.provider import ProviderConfig
from tests.vendors.fake import KEY
from tests.vendors.world import FAKES, HI, World, failing, play, text_of

pytestmark = pytest.mark.anyio

# A stream that ends too soon

CUTS = [
    ("anthropic", "cut"),
    ("anthropic", "cut_after_tool"),
    ("anthropic", "no_reason"),
    ("anthropic", "reset"),
    ("gemini", "cut"),
    ("gemini", "two_one_cut"),
    ("gemini", "reset"),
    ("bedrock", "cut"),
    ("cohere", "cut"),
    ("azure", "cut"),
    ("azure", "cut_but_done"),
    ("azure", "reset"),
]


@pytest.mark.parametrize(("name", "scenario"), CUTS)
async def test_a_cut_stream_is_a_failure(world: World, name: str, scenario: str) -> None:
    adapter = await world.adapter(name, scenario)
    if scenario == "reset":
        world.vendors[name].proceed.set()
    events, error = await failing(adapter.stream_chat(HI, n=1))
    assert error.kind is Kind.CUT
    assert not [event for event in events if isinstance(event, Finish)]
    assert len(world.vendors[name].requests) == 1, "it must not ask again"


@pytest.mark.parametrize("name", ["anthropic", "gemini", "bedrock", "cohere"])
async def test_an_error_in_the_middle_of_a_stream_is_a_failure(world: World, name: str) -> None:
    events, error = await failing((await world.adapter(name, "error_midway")).stream_chat(HI))
    assert text_of(events) == "Hel"
    assert error.kind is Kind.SERVER
    assert "verloaded" in error.message


# A refusal

REFUSALS: list[tuple[str, str, Kind, int, float | None, str]] = [
    ("anthropic", "bad_request", Kind.REJECTED, 400, None, "max_tokens: 999999 > 64000, which is the maximum"),
    ("anthropic", "unauthorized", Kind.AUTH, 401, None, "invalid x-api-key: [redacted]"),
    ("anthropic", "missing", Kind.MISSING, 404, None, "model: claude-0"),
    ("anthropic", "rate_limit", Kind.RATE_LIMIT, 429, 7, "Number of request tokens exceeds your limit"),
    ("anthropic", "server_error", Kind.SERVER, 500, None, "Internal server error"),
    ("anthropic", "overloaded", Kind.SERVER, 529, 3, "Overloaded"),
    ("gemini", "bad_request", Kind.REJECTED, 400, None, "temperature must be in [0, 2]"),
    ("gemini", "unauthorized", Kind.AUTH, 401, None, "API key not valid: [redacted]"),
    ("gemini", "missing", Kind.MISSING, 404, None, "models/gemini-0 is not found"),
    ("gemini", "rate_limit", Kind.RATE_LIMIT, 429, 7, "You exceeded your current quota"),
    ("anthropic", "spent", Kind.AUTH, 400, None, "You have reached your specified API usage limits."),
    ("gemini", "nowhere", Kind.AUTH, 400, None, "User location is not supported for the API use."),
    ("gemini", "quota", Kind.RATE_LIMIT, 429, 36.5, "You exceeded your current quota"),
    ("gemini", "server_error", Kind.SERVER, 500, None, "An internal error has occurred"),
    ("gemini", "overloaded", Kind.SERVER, 503, 3, "The model is overloaded"),
    ("bedrock", "rate_limit", Kind.RATE_LIMIT, 429, None, "Too many requests, please wait before trying again"),
    ("bedrock", "model_failed", Kind.SERVER, 424, None, "The model has failed. Retry your request"),
    ("cohere", "rate_limit", Kind.RATE_LIMIT, 429, None, "You are using a Trial key"),
    ("azure", "rate_limit", Kind.RATE_LIMIT, 429, 1.5, "Requests have exceeded the rate limit of your tier"),
    ("azure", "server_error", Kind.SERVER, 500, None, "Internal server error"),
    ("deepinfra", "rate_limit", Kind.RATE_LIMIT, 429, 1.5, "Requests have exceeded the rate limit of your tier"),
    ("scaleway", "server_error", Kind.SERVER, 500, None, "Internal server error"),
]


@pytest.mark.parametrize(("name", "scenario", "kind", "status", "wait", "said"), REFUSALS)
async def test_a_refusal_is_named_and_asked_for_once(
    world: World, name: str, scenario: str, kind: Kind, status: int, wait: float | None, said: str
) -> None:
    events, error = await failing((await world.adapter(name, scenario)).stream_chat(HI))
    assert not events
    assert (error.kind, error.upstream_status, error.retry_after) == (kind, status, wait)
    assert said in error.message
    assert "litellm" not in error.message.lower()
    assert error.code == "provider_error", "a status, or a kind of error, is not the name of a mistake"
    assert KEY not in f"{error!r} {error.__cause__!r}", "an error must never tell the key"
    assert len(world.vendors[name].requests) == 1, "retries are Weir's to decide"


async def test_a_refusal_keeps_the_name_that_the_vendor_gives_it(world: World) -> None:
    _, error = await failing((await world.adapter("azure", "filtered")).stream_chat(HI))
    assert (error.kind, error.code) == (Kind.REJECTED, "content_filter")


def test_a_package_that_is_missing_is_the_operators_to_install() -> None:
    config = ProviderConfig(provider_id="v", provider_type="vertex_ai", model_name="gemini-2.5-flash")
    error = failure(ModuleNotFoundError("No module named 'google'"), config, asked=False, started=False, ready=False)
    assert (error.kind, error.message) == (Kind.CONFIG, "No module named 'google'")


async def test_a_wrong_key_is_the_operators_fault_even_as_a_400(world: World) -> None:
    _, error = await failing((await world.adapter("gemini", api_key="wrong-key")).stream_chat(HI))
    assert (error.kind, error.upstream_status) == (Kind.AUTH, 400)


@pytest.mark.parametrize("name", sorted(FAKES.keys() - {"cohere"}))  # for whom LiteLLM uses a client of its own
async def test_a_connection_that_breaks_before_the_answer_is_not_tried_again(world: World, name: str) -> None:
    _, error = await failing((await world.adapter(name, "reset_at_once")).stream_chat(HI))
    assert error.kind is Kind.CONNECT
    assert len(world.vendors[name].requests) == 1, "LiteLLM's own second attempt must not happen"


@pytest.mark.parametrize("name", FAKES)
async def test_nobody_listening_is_a_failure_to_connect(world: World, name: str, unused_tcp_port: int) -> None:
    adapter = await world.adapter(name, base_url=f"http://127.0.0.1:{unused_tcp_port}")
    _, error = await failing(adapter.stream_chat(HI))
    assert (error.kind, error.upstream_status) == (Kind.CONNECT, None)


@pytest.fixture
async def unused_tcp_port() -> int:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    return port


async def test_a_page_instead_of_a_stream_is_garbled(world: World) -> None:
    _, error = await failing((await world.adapter("anthropic", "portal")).stream_chat(HI))
    assert (error.kind, error.upstream_status) == (Kind.GARBLED, 200)
    assert "an HTML page" in error.message


async def test_a_redirect_is_not_followed_with_the_key(world: World) -> None:
    _, error = await failing((await world.adapter("anthropic", "redirect")).stream_chat(HI))
    assert error.kind is Kind.GARBLED
    assert len(world.vendors["anthropic"].requests) == 1


async def test_connecting_takes_no_longer_than_configured(world: World) -> None:
    """The session's only connection is taken, so that the second call waits for one until its limit."""
    await world.adapter("anthropic", "hang")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as world.session:
        first = (await world.adapter("anthropic", "hang")).stream_chat(HI)
        await anext(first)
        impatient = await world.adapter("anthropic", timeouts={"connect": 0.05})
        _, error = await failing(impatient.stream_chat(HI))
        await first.aclose()
    assert (error.kind, error.message) == (Kind.CONNECT, "no connection within 0.05 s")


async def test_no_time_limit_is_shorter_than_the_total(world: World) -> None:
    """LiteLLM's own would be 600 s. Over our own transport it has none at all; OpenAI's SDK tells what it was given."""
    await play((await world.adapter("azure", timeouts={"total": 5000})).stream_chat(HI))
    assert float(world.vendors["azure"].requests[0].headers["x-stainless-read-timeout"]) == 5000


# A client that goes away


@pytest.mark.parametrize("name", FAKES)
async def test_closing_the_stream_ends_the_upstream_call(world: World, name: str) -> None:
    stream = (await world.adapter(name, "hang")).stream_chat(HI)
    async for event in stream:
        if isinstance(event, TextDelta):
            break
    async with asyncio.timeout(1):
        await stream.aclose()
        await world.vendors[name].left.wait()


async def test_cancelling_the_stream_ends_the_upstream_call(world: World) -> None:
    adapter, begun = await world.adapter("anthropic", "hang"), asyncio.Event()

    async def listen() -> None:
        async for event in adapter.stream_chat(HI):
            if isinstance(event, TextDelta):
                begun.set()

    listening = asyncio.create_task(listen())
    async with asyncio.timeout(5):
        await begun.wait()
    listening.cancel()
    async with asyncio.timeout(1):
        await world.vendors["anthropic"].left.wait()
    with pytest.raises(asyncio.CancelledError):
        await listening
