"""A route of Weir's, in an application that knows nothing of Weir: an id, OpenAI's error shape, and nothing else."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from proxy.api.route import Route
from proxy.errors import Kind as FailureKind
from proxy.errors import NoAnswer, ProviderError, RequestError

pytestmark = pytest.mark.anyio

router = APIRouter(route_class=Route)


@router.get("/id")
async def tell_id(request: Request) -> Response:
    return JSONResponse({"id": request.state.id})


@router.get("/number")
async def tell_number(n: int) -> Response:
    return JSONResponse({"n": n})


@router.get("/mistake")
async def mistake() -> Response:
    raise RequestError("colour: there is no such colour", param="colour")


@router.get("/busy")
async def busy() -> Response:
    raise NoAnswer({"a": ProviderError(FailureKind.RATE_LIMIT, "slow down", retry_after=7)})


@router.get("/bug")
async def bug() -> Response:
    raise ZeroDivisionError


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(router)

    @app.middleware("http")
    async def with_state(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
        if "mine" in request.headers:
            mine: Any = request.headers["mine"]
            request.state.id = int(mine) if mine.isdigit() else mine
        response = await proceed(request)
        response.headers["still-mine"] = str(getattr(request.state, "id", None))
        return response

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def test_every_answer_names_its_request(client: httpx.AsyncClient) -> None:
    ids = set()
    for path, status in (("/id", 200), ("/number?n=1", 200), ("/number", 400), ("/mistake", 400), ("/busy", 429)):
        got = await client.get(path)
        assert got.status_code == status
        ids.add(got.headers["x-request-id"])
    assert len(ids) == 5, "two requests have one id"


async def test_the_id_is_the_applications_if_it_has_given_one(client: httpx.AsyncClient) -> None:
    got = await client.get("/id", headers={"mine": "trace-7f3"})
    assert (got.json()["id"], got.headers["x-request-id"]) == ("trace-7f3", "trace-7f3")


@pytest.mark.parametrize("mine", ["42", "a b", "a/b", "x" * 129])
async def test_what_else_the_application_keeps_there_is_left_alone(client: httpx.AsyncClient, mine: str) -> None:
    got = await client.get("/id", headers={"mine": mine})
    assert got.headers["x-request-id"] == got.json()["id"] != mine
    assert got.headers["still-mine"] == mine


async def test_mistakes_are_told_in_openais_shape(client: httpx.AsyncClient) -> None:
    error = (await client.get("/mistake")).json()["error"]
    assert error == {
        "message": "colour: there is no such colour",
        "type": "invalid_request_error",
        "param": "colour",
        "code": "invalid_request",
    }
    error = (await client.get("/number?n=one")).json()["error"]
    assert (error["param"], error["code"]) == ("n", "invalid_request")
    assert error["message"].startswith("n: ")


async def test_headers_of_an_error_go_with_it(client: httpx.AsyncClient) -> None:
    assert (await client.get("/busy")).headers["retry-after"] == "7"


async def test_a_bug_is_the_applications_to_tell(client: httpx.AsyncClient) -> None:
    assert (await client.get("/bug")).text == "Internal Server Error"
