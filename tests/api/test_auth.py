"""Keys: who may use models, who may change providers, and whom Weir serves when there are no keys at all."""

import gc
import re

import pytest
from starlette.requests import HTTPConnection

from proxy.api.auth import Keys
from proxy.app import create_app
from proxy.errors import AccessError
from proxy.settings import Settings
from tests.server import Server

pytestmark = pytest.mark.anyio

BOTH = Settings(api_keys="client-key-1,client-key-2", admin_key="admin-key-1")  # type: ignore[arg-type]
NONE, ONLY_API, ONLY_ADMIN = Settings(), Settings(api_keys=["client-key-1"]), Settings(admin_key="admin-key-1")  # type: ignore[list-item, arg-type]
LOCAL = {"host": "127.0.0.1:8000"}


def asking(headers: dict[str, str]) -> HTTPConnection:
    return HTTPConnection({"type": "http", "headers": [(k.encode(), v.encode("latin-1")) for k, v in headers.items()]})


def refusal(settings: Settings, route: str, **headers: str) -> tuple[int, str] | None:
    """Status and message, or None where the door is open."""
    keys = Keys(settings)
    check = keys.check_admin if route == "admin" else keys.check_client
    try:
        check(asking({**LOCAL, **{name.replace("_", "-"): value for name, value in headers.items()}}))
    except AccessError as error:
        return error.status, error.message
    return None


@pytest.mark.parametrize(
    ("route", "headers"),
    [
        ("client", {"authorization": "Bearer client-key-1"}),
        ("client", {"authorization": "bearer  client-key-2 "}),
        ("client", {"x-api-key": "client-key-2"}),
        ("client", {"authorization": "Basic abc", "x-api-key": "client-key-1"}),
        ("client", {"api-key": "client-key-1"}),
        ("admin", {"authorization": "Bearer admin-key-1"}),
        ("admin", {"x-api-key": "admin-key-1"}),
    ],
)
def test_the_right_key_opens(route: str, headers: dict[str, str]) -> None:
    assert refusal(BOTH, route, **headers) is None


@pytest.mark.parametrize(
    ("route", "headers"),
    [
        ("client", {"authorization": "Bearer admin-key-1"}),
        ("admin", {"authorization": "Bearer client-key-1"}),
        ("client", {"authorization": "Bearer client-key"}),
        ("client", {"authorization": "Bearer client-key-1,client-key-2"}),
        ("client", {"authorization": "Basic client-key-1"}),
        ("client", {"authorization": "client-key-1"}),
        ("client", {"authorization": "Bearer "}),
        ("client", {"x-api-key": ""}),
        ("client", {"x-api-key": "\xff\xfe"}),
        ("client", {"x-api-key": "x" * 100_000}),
        ("client", {}),
        ("admin", {}),
    ],
)
def test_anything_else_is_refused(route: str, headers: dict[str, str]) -> None:
    assert (refusal(BOTH, route, **headers) or (0,))[0] == 401


def test_with_one_kind_of_key_the_other_routes_are_closed_and_say_why() -> None:
    for key in ("client-key-1", "admin-key-1"):
        assert refusal(ONLY_API, "admin", authorization=f"Bearer {key}") == (
            403,
            "this route is closed: WEIR_ADMIN_KEY is not set",
        )
        assert refusal(ONLY_ADMIN, "client", authorization=f"Bearer {key}") == (
            403,
            "this route is closed: WEIR_API_KEYS is not set",
        )
    assert refusal(ONLY_API, "client", x_api_key="client-key-1") is None
    assert refusal(ONLY_ADMIN, "admin", x_api_key="admin-key-1") is None


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1", "127.0.0.1:8000", "[::1]", "[::1]:8000"])
@pytest.mark.parametrize(
    "origin", [None, "http://localhost:3000", "http://127.0.0.1", "http://[::1]:1", "https://LOCALHOST"]
)
def test_without_keys_this_machine_is_served(host: str, origin: str | None) -> None:
    for route in ("client", "admin"):
        assert refusal(NONE, route, host=host, **({"origin": origin} if origin else {})) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example:8000"},
        {"host": "localhost.evil.example"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "localhost@evil.example"},
        {"host": "192.168.0.7:8000"},
        {"host": "0.0.0.0:8000"},
        {"host": ""},
        {"host": "[::1"},
        {"host": "[evil]"},
        {"origin": "http://evil.example"},
        {"origin": "http://localhost.evil.example"},
        {"origin": "http://127.0.0.1@evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://["},
        {"origin": "file://"},
    ],
)
def test_without_keys_everyone_else_is_refused(headers: dict[str, str]) -> None:
    """A page of another site reaches us through its own DNS name (Host), or from a sandbox whose Origin is `null`."""
    for route in ("client", "admin"):
        status, message = refusal(NONE, route, **headers) or (0, "")
        assert status == 403, f"{headers} got in"
        assert "WEIR_API_KEYS" in message


def test_keys_are_kept_as_hashes_only() -> None:
    keys = Keys(BOTH)
    held = repr(vars(keys)) + repr(keys) + repr(gc.get_referents(keys))
    for key in ("client-key-1", "client-key-2", "admin-key-1"):
        assert key not in held


ROUTES = [
    ("POST", "/v1/chat/completions", "client"),
    ("GET", "/v1/models", "client"),
    ("GET", "/v1/models/x", "client"),
    ("GET", "/providers", "admin"),
    ("POST", "/providers", "admin"),
    ("POST", "/providers/register", "admin"),
    ("POST", "/api/streaming/providers/register", "admin"),
    ("GET", "/providers/health", "admin"),
    ("GET", "/providers/x", "admin"),
    ("PATCH", "/providers/x", "admin"),
    ("DELETE", "/providers/x", "admin"),
    ("POST", "/api/streaming/chat", "client"),
    ("POST", "/api/chat", "client"),
    ("POST", "/api/streaming/streams/x/cancel", "client"),
    ("GET", "/api/streaming/sessions", "client"),
    ("GET", "/api/streaming/sessions/x", "client"),
    ("GET", "/api/streaming/sessions/x/export", "client"),
    ("DELETE", "/api/streaming/sessions/x", "client"),
    ("GET", "/api/streaming/stats", "admin"),
    ("GET", "/api/chat/x/stream", "client"),
    ("GET", "/v1/streams/x", "client"),
    ("GET", "/v1/streams/x/status", "client"),
    ("DELETE", "/v1/streams/x", "client"),
]


@pytest.mark.parametrize(("method", "path", "guard"), ROUTES)
async def test_every_route_is_guarded_by_its_own_key(method: str, path: str, guard: str, guarded: Server) -> None:
    right, wrong = ("client-key-1", "admin-key-1") if guard == "client" else ("admin-key-1", "client-key-1")
    for headers in ({}, {"authorization": f"Bearer {wrong}"}, {"x_api_key": "nonsense"}):
        got = await guarded.ask(method, path, b"not JSON", **headers)
        assert (got.status, got.body["error"]["type"]) == (401, "authentication_error"), f"{headers} got in"
        assert got.message
        assert got.headers["x-request-id"]
    assert (await guarded.ask(method, path, b"not JSON", x_api_key=right)).status in (200, 204, 400, 404)


def test_every_route_but_health_is_guarded() -> None:
    """A route that is added without a guard is found here."""
    for path, methods in create_app(Settings()).openapi()["paths"].items():
        pattern = re.sub(r"\{[^}]+\}", "[^/]+", path)
        for method in methods:
            tested = any(method.upper() == known and re.fullmatch(pattern, place) for known, place, _ in ROUTES)
            open_to_all = path.startswith(("/health/", "/api/streaming/ws/"))  # a GET there only says how to connect
            assert open_to_all or tested, f"{method} {path} has no test here"


async def test_health_needs_no_key(guarded: Server) -> None:
    for path in ("/health/live", "/health/ready"):
        assert (await guarded.ask("GET", path)).status == 200


async def test_dns_rebinding_over_a_real_socket(server: Server) -> None:
    assert (await server.ask("GET", "/providers")).status == 200
    for headers in ({"host": "evil.example"}, {"host": "[::1"}, {"origin": "null"}, {"origin": "http://["}):
        for path in ("/providers", "/v1/models"):
            got = await server.ask("GET", path, **headers)
            assert (got.status, got.body["error"]["code"]) == (403, "no_keys"), f"{headers} got in"
