"""What there is to know about LiteLLM's vendors: which fields of a client's body they get, and how they are reached.

The fields are an allow-list, because `litellm.acompletion` takes what the client asks and what the operator decides in
one bag of keyword arguments: keys, base URLs, mock answers, prices, callbacks. Its own list of these has 350 names, the
vendors' code reads hundreds more (`polling_url`, `azure_endpoint`, `oci_key_file` ...), some values are looked up in
the environment ("os.environ/NAME"), and every release adds to them. With a deny-list each of those would be a hole
until somebody noticed; here a vendor's new field is refused by name until it is added below.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from proxy.errors import Kind, ProviderError


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OPENAI = _names("""
    audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens modalities n
    parallel_tool_calls prediction presence_penalty prompt_cache_key prompt_cache_retention reasoning_effort
    response_format safety_identifier seed service_tier stop store temperature tool_choice top_logprobs top_p user
    verbosity web_search_options
""")

# No reason to refuse, and nothing to pass on: OpenAI files finished answers under `metadata` (LiteLLM takes it for
# notes of its own), and whether and how an answer is streamed is between the client and Weir.
_NOT_FOR_VENDORS = _names("metadata stream stream_options")

# What is so anyway. Some clients (LangChain.js 0.3) say it in every request, also to vendors without the parameter.
_NEUTRAL: Mapping[str, Any] = {
    "frequency_penalty": 0,
    "logit_bias": {},
    "logprobs": False,
    "n": 1,
    "presence_penalty": 0,
    "store": False,
}

_ANY_VENDOR = _names("thinking top_k")
_CLAUDE = _names("cache_control container context_management mcp_servers output_config output_format speed")
_GEMINI = _names("""
    cached_content generationConfig imageConfig labels mediaResolution media_resolution responseModalities
    response_mime_type response_schema safetySettings safety_settings speechConfig toolConfig
""")
_BEDROCK = _names("additionalModelRequestFields guardrailConfig performanceConfig requestMetadata")
_COHERE = _names("citation_options connectors documents k p preamble safety_mode search_queries_only")
_MISTRAL = _names("prompt_mode random_seed safe_prompt")
_OPEN_MODELS = _names("""
    chat_template_kwargs guided_choice guided_grammar guided_json guided_regex ignore_eos include_reasoning
    length_penalty min_p min_tokens plugins provider reasoning repetition_penalty search_domain_filter
    skip_special_tokens stop_token_ids top_a transforms
""")

_VENDORS: Mapping[str, frozenset[str]] = {
    "anthropic": _CLAUDE,
    "azure_ai": _CLAUDE | _OPEN_MODELS,
    "bedrock": _BEDROCK | _CLAUDE,
    "cohere": _COHERE,
    "cohere_chat": _COHERE,
    "gemini": _GEMINI,
    "mistral": _MISTRAL,
    "vertex_ai": _GEMINI | _CLAUDE,
    "vertex_ai_beta": _GEMINI,
}


# LiteLLM counts these among its vendors, but they read prompts from elsewhere, ask a browser to log in, or route.
NOT_VENDORS = _names("""
    auto_router chatgpt custom dotprompt github_copilot humanloop langfuse litellm_agent petals vllm
""")
# LiteLLM calls these, too, through OpenAI's SDK, which brings its own HTTP client (`LiteLLMAdapter._by_sdk`).
THROUGH_OPENAI_SDK = _names("""
    aiohttp_openai azure azure_text clarifai custom_openai openai text-completion-inception text-completion-openai
    volcengine
""")
# In LiteLLM's list of such vendors, and yet called over a client of ours.
OVER_HTTP = _names("""
    azure_ai cometapi deepseek edenai fireworks_ai groq heroku hosted_vllm minimax ragflow together_ai xai
""")
# LiteLLM's translation refuses for these what it takes, and drops, for all others.
NO_STREAM_OPTIONS = _names("bytez oci")
# These let us in by something other than a key, which they look for where their own SDK would.
AMBIENT = _names("""
    azure azure_ai azure_text bedrock databricks oci sagemaker sagemaker_chat vertex_ai vertex_ai_beta watsonx
""")


@cache
def parameters(provider_type: str) -> frozenset[str]:
    """The fields that say what is asked of such a vendor, and nothing about how."""
    return _OPENAI | _ANY_VENDOR | _VENDORS.get(provider_type, _OPEN_MODELS)


def pick(fields: Mapping[str, Any], provider_type: str, drop: bool) -> dict[str, Any]:
    """The fields to pass on. One that is not listed raises ProviderError (rejected), or with `drop` is left out."""
    known = parameters(provider_type)
    told = {name: value for name, value in fields.items() if value is not None and value != _NEUTRAL.get(name)}
    picked = {name: value for name, value in told.items() if name not in _NOT_FOR_VENDORS}
    for name in sorted(picked.keys() - known):
        if not drop:
            said = f"{name!r} is not a parameter of chat completions with {provider_type}"
            raise ProviderError(Kind.REJECTED, said, upstream_status=400)
        del picked[name]
    return picked
