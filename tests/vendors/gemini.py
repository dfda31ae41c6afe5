"""Google's Gemini API, v1beta: `streamGenerateContent?alt=sse`, each event a whole GenerateContentResponse."""

import json
from collections.abc import Mapping, Sequence

from tests.vendors.fake import KEY, Answer, FakeVendor, Json, Request

_USAGE: Json = {
    "promptTokenCount": 12,
    "cachedContentTokenCount": 5,
    "candidatesTokenCount": 9,
    "thoughtsTokenCount": 4,
    "totalTokenCount": 25,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 12}],
}


_PICTURE: Json = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
_GROUNDS: Json = {
    "groundingChunks": [{"web": {"uri": "https://rain.example", "title": "Rain"}}],
    "groundingSupports": [{"segment": {"startIndex": 0, "endIndex": 5}, "groundingChunkIndices": [0]}],
}
_ODDS: Json = {"chosenCandidates": [{"token": "Hi", "logProbability": -0.5}]}


def _said(*parts: Json, reason: str | None = None, index: int = 0, usage: bool = False, **more: Json) -> Json:
    candidate: Json = {"content": {"parts": list(parts), "role": "model"}, "index": index, **more}
    if reason:
        candidate["finishReason"] = reason
    chunk: Json = {"candidates": [candidate], "modelVersion": "gemini-2.5-flash", "responseId": "fakeFakeFake"}
    chunk["usageMetadata"] = _USAGE if usage else {"promptTokenCount": 12, "totalTokenCount": 12}
    return chunk


def _text(text: str, reason: str | None = None, index: int = 0, usage: bool = False, **more: Json) -> Json:
    return _said({"text": text}, reason=reason, index=index, usage=usage, **more)


def _call(name: str, **args: str) -> Json:
    return {"functionCall": {"name": name, "args": args}}


_RETRY: Json = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "36.5s"}


def _error(status: int, name: str, message: str, details: Sequence[Json] = (), **headers: str) -> Answer:
    body = {"error": {"code": status, "message": message, "status": name, "details": details}}
    return Answer(status=status, error=body, headers={name.replace("_", "-"): text for name, text in headers.items()})


ANSWERS: Mapping[str, Answer] = {
    "text": Answer([_text("Hel"), _text("lo", "STOP", usage=True)]),
    "two": Answer([_text("A"), _text("B", index=1), _text("a", "STOP"), _text("b", "MAX_TOKENS", 1, usage=True)]),
    "two_one_cut": Answer([_text("A"), _text("B", index=1), _text("a", "STOP", usage=True)]),
    "long": Answer([_text("Hel", "MAX_TOKENS", usage=True)]),
    "tools": Answer(
        [
            _text("Let me look."),
            _said(_call("get_weather", city="Paris") | {"thoughtSignature": "c2lnbmF0dXJl"}),
            _said(_call("get_time", zone="CET"), reason="STOP", usage=True),
        ]
    ),
    "thinking": Answer(
        [
            _said({"text": "Two and two make four.", "thought": True}),
            _said({"text": "4", "thoughtSignature": "c2lnbmF0dXJl"}, reason="STOP", usage=True),
        ]
    ),
    "picture": Answer([_said(_PICTURE), _text("", "STOP", usage=True)]),
    "sources": Answer([_text("Rain."), _text(" ", "STOP", usage=True, groundingMetadata=_GROUNDS)]),
    "odds": Answer([_text("Hi", logprobsResult=_ODDS), _text("!", "STOP", usage=True)]),
    "cut": Answer([_text("Hel")]),
    "reset": Answer([_text("Hel")], ending="reset"),
    "hang": Answer([_text("Hel")], ending="hang"),
    "error_midway": Answer([_text("Hel"), {"error": {"code": 503, "message": "Overloaded", "status": "UNAVAILABLE"}}]),
    "bad_request": _error(400, "INVALID_ARGUMENT", "temperature must be in [0, 2]"),
    "unauthorized": _error(401, "UNAUTHENTICATED", f"API key not valid: {KEY}"),
    "missing": _error(404, "NOT_FOUND", "models/gemini-0 is not found"),
    "rate_limit": _error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota", retry_after="7"),
    "quota": _error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota", details=[_RETRY]),
    "nowhere": _error(400, "FAILED_PRECONDITION", "User location is not supported for the API use."),
    "server_error": _error(500, "INTERNAL", "An internal error has occurred"),
    "overloaded": _error(503, "UNAVAILABLE", "The model is overloaded", retry_after="3"),
}


class FakeGemini(FakeVendor):
    """Refuses what Gemini would refuse: a wrong key, another endpoint, empty contents, roles that do not alternate."""

    path = "/v1beta/models/{model}:streamGenerateContent"
    answers = ANSWERS

    def fault(self, request: Request) -> Answer | None:
        if request.headers.get("x-goog-api-key") != KEY:
            return _error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.")
        problem = _problem(request)
        return _error(400, "INVALID_ARGUMENT", problem) if problem else None

    def frame(self, event: Json) -> bytes:
        return f"data: {json.dumps(event)}\r\n\r\n".encode()


def _problem(request: Request) -> str | None:
    contents = request.body.get("contents", [])
    roles = [content.get("role") for content in contents]
    if "alt=sse" not in request.path:
        return "this fake only speaks server-sent events"
    if not all(content.get("parts") for content in contents):
        return "GenerateContentRequest.contents: contents.parts must not be empty"
    if not roles or any(role != ("user", "model")[turn % 2] for turn, role in enumerate(roles)):
        return f"roles must alternate between user and model, got {roles}"
    return None
