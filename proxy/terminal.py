"""A chat in the terminal, for a newcomer to see it work: `python -m proxy chat`."""

import http.client
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

Message = dict[str, str]


def chat(url: str, model: str | None, key: str | None) -> int:
    """Reads questions from stdin and streams answers to stdout, until the end of input. An exit code."""
    url = url.rstrip("/").removesuffix("/v1")
    url = url if "://" in url else f"http://{url}"
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()):
        return _complain("the key must be printable ASCII, without line breaks")
    try:
        model = model or _first_model(url, key)
        print(f"{model} at {url}; an empty line or Ctrl-D ends the chat.", flush=True)
        messages: list[Message] = []
        while question := _ask():
            messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": _answer(url, model, key, messages)})
    except KeyboardInterrupt:
        print()
    except _Trouble as trouble:
        return _complain(str(trouble))
    except urllib.error.HTTPError as error:
        return _complain(_message(error) or f"{url} answers with HTTP {error.code}; is it Weir's address?")
    except (OSError, http.client.HTTPException) as error:
        return _complain(f"{url}: {getattr(error, 'reason', error)}; is Weir running? (make run)")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        return _complain(f"{url} does not answer like Weir ({type(error).__name__})")
    return 0


class _Trouble(Exception):
    """Something that Weir says, or that can be said without it."""


def _ask() -> str:
    try:
        return input("\n> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return ""
    except UnicodeDecodeError as error:
        raise _Trouble(f"the question is not text: {error}") from None


def _answer(url: str, model: str, key: str, messages: list[Message]) -> str:
    said = ""
    try:
        for piece in _stream(url, key, {"model": model, "messages": messages, "stream": True}):
            said += piece
            print(piece, end="", flush=True)
    finally:
        print(flush=True)
    return said


def _stream(url: str, key: str, body: dict[str, Any]) -> Iterator[str]:
    with urllib.request.urlopen(_request(f"{url}/v1/chat/completions", key, body), timeout=600) as response:
        for line in response:
            if line.startswith(b"data: [DONE]"):
                return
            if not line.startswith(b"data: "):
                continue
            chunk = json.loads(line[6:])
            if "error" in chunk:
                raise _Trouble(chunk["error"]["message"])
            for choice in chunk["choices"]:
                yield choice["delta"].get("content") or ""
    raise _Trouble(f"the answer of {url} broke off")  # which http.client does not tell from an end


def _first_model(url: str, key: str) -> str:
    with urllib.request.urlopen(_request(f"{url}/v1/models", key, None), timeout=10) as response:
        models = json.load(response)["data"]
    if not models:
        raise _Trouble("no provider is registered yet")
    return str(models[0]["id"])


def _request(url: str, key: str, body: dict[str, Any] | None) -> urllib.request.Request:
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    return urllib.request.Request(url, json.dumps(body).encode() if body else None, headers)


def _message(error: urllib.error.HTTPError) -> str:
    """What Weir says; nothing if it is somebody else."""
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return ""


def _complain(message: str) -> int:
    print(message, file=sys.stderr)
    return 1
