"""What a client may say to LiteLLM, and what it may not: everything that is the operator's to decide."""

import importlib
import re
from typing import Any

import pytest

from proxy.errors import ConfigError, Kind
from tests.vendors.world import HI, World, failing, play, text_of

pytestmark = pytest.mark.anyio

# What a client must not say

CONTROL = re.findall(
    r"\S+",
    """
    api_key api_base base_url api_version custom_llm_provider extra_headers headers timeout request_timeout
    mock_response mock_tool_calls fallbacks model_list callbacks proxy_server_request litellm_params litellm_metadata
    litellm_logging_obj logger_fn aws_region_name aws_secret_access_key aws_bedrock_runtime_endpoint vertex_project
    vertex_credentials azure_ad_token azure_endpoint ssl_verify client shared_session http_client drop_params
    additional_drop_params allowed_openai_params extra_body num_retries max_retries caching cache cooldown_time
    input_cost_per_token use_litellm_proxy prompt_id guardrails tags oci_key_file gigachat_auth_url polling_url
    sagemaker_base_url acompletion optional_params encoding _skip_mcp_handler organization deployment_id region_name
    """,
)


@pytest.mark.parametrize("field", CONTROL)
async def test_call_control_is_refused(world: World, field: str) -> None:
    for name in ("anthropic", "gemini"):
        _, error = await failing((await world.adapter(name)).stream_chat(HI, None, **{field: "http://127.0.0.1:9"}))
        assert (error.kind, error.upstream_status) == (Kind.REJECTED, 400)
        assert f"{field!r} is not a parameter of chat completions" in error.message
        assert not world.vendors[name].requests, f"{field} got past the gate"


async def test_whatever_litellm_calls_its_own_is_refused(world: World) -> None:
    """Its list grows with every release; `metadata` is OpenAI's, and never passed on."""
    adapter = await world.adapter("bedrock")
    owned = importlib.import_module("litellm.types.utils").all_litellm_params
    assert len(owned) > 300
    for field in set(owned) - {"metadata", "self"}:
        _, error = await failing(adapter.stream_chat(HI, None, **{field: "x"}))
        assert "is not a parameter" in error.message, f"{field} got past the gate: {error.message}"


async def test_control_is_left_out_where_parameters_are_dropped(world: World) -> None:
    adapter = await world.adapter("anthropic", drop_params="always")
    await play(adapter.stream_chat(HI, api_base="http://127.0.0.1:9", mock_response="gotcha", seed=1))
    assert not {"api_base", "mock_response", "seed"} & world.vendors["anthropic"].body.keys()


async def test_a_value_never_makes_litellm_read_the_environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "do-not-tell")
    body = await world.body("anthropic", [{"role": "user", "content": "os.environ/SECRET"}], user="os.environ/SECRET")
    assert body["metadata"] == {"user_id": "os.environ/SECRET"}
    assert "do-not-tell" not in str(body)
    hidden = await world.adapter("azure", params={"tenant_id": ["oidc/file//etc/passwd"]}, api_key="os.environ/SECRET")
    with pytest.raises(ConfigError) as caught:
        await hidden.create_model()
    assert {problem.partition(":")[0] for problem in caught.value.problems} == {"api_key", "params.tenant_id.0"}


async def test_a_key_in_the_environment_is_not_sent_to_a_base_url(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-of-the-operator")
    _, error = await failing((await world.adapter("anthropic", api_key=None)).stream_chat(HI))
    assert error.kind is Kind.AUTH
    assert "sk-ant" not in str(world.vendors["anthropic"].requests)


# Parameters the vendor does not have


@pytest.mark.parametrize(
    ("drop_params", "fallback", "dropped"),
    [
        ("fallback", False, False),
        ("fallback", True, True),
        ("always", False, True),
        ("never", True, False),
    ],
)
async def test_an_unsupported_parameter_is_refused_or_dropped(
    world: World, drop_params: str, fallback: bool, dropped: bool
) -> None:
    adapter = await world.adapter("anthropic", drop_params=drop_params)
    stream = adapter.stream_chat(HI, seed=1, safety_settings=[], weir_fallback=fallback)
    if dropped:
        assert text_of(await play(stream)) == "Hello"
        assert not {"seed", "safety_settings", "weir_fallback"} & world.vendors["anthropic"].body.keys()
    else:
        _, error = await failing(stream)
        assert (error.kind, error.upstream_status) == (Kind.REJECTED, 400)
        assert not world.vendors["anthropic"].requests


async def test_what_is_so_anyway_is_refused_by_nobody(world: World) -> None:
    """LangChain.js 0.3 says some of it in every request."""
    neutral = {"frequency_penalty": 0, "presence_penalty": 0.0, "n": 1, "logit_bias": {}, "logprobs": False}
    body = await world.body("anthropic", HI, **neutral, store=False, temperature=0)
    assert not {*neutral, "store"} & body.keys()
    assert body["temperature"] == 0, "this is somebody's wish"


async def test_a_refusal_names_the_parameter_in_one_line(world: World) -> None:
    _, error = await failing((await world.adapter("anthropic")).stream_chat(HI, seed=1))
    assert error.message == "anthropic does not support parameters: ['seed']"


@pytest.mark.parametrize("content", [7, [5], [{"type": "image_url"}]])
async def test_a_message_of_the_wrong_shape_is_the_clients_fault(world: World, content: Any) -> None:
    """As the vendor's failure it would count against a vendor that nobody has asked."""
    _, error = await failing((await world.adapter("anthropic")).stream_chat([{"role": "user", "content": content}]))
    assert (error.kind, error.upstream_status) == (Kind.REJECTED, 400)
    assert "Traceback" not in error.message


CUT_SHORT = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Par'}}


@pytest.mark.parametrize(
    "messages",
    [
        [*HI, {"role": "assistant", "tool_calls": [CUT_SHORT]}, {"role": "tool", "tool_call_id": "c1", "content": ""}],
        [*HI, {"role": "tool", "tool_call_id": "c1", "content": "sunny"}],
        [{"role": "critic", "content": "Hi"}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/svg+xml;utf8,<svg/>"}}]}],
    ],
    ids=["arguments cut short", "result without call", "role", "image"],
)
async def test_what_cannot_be_translated_is_the_clients_fault(world: World, messages: Any) -> None:
    """A few such requests would otherwise leave Gemini out for everybody."""
    _, error = await failing((await world.adapter("gemini")).stream_chat(messages))
    assert (error.kind, error.upstream_status) == (Kind.REJECTED, 400)
    assert not world.vendors["gemini"].requests
