"""One small real question to a provider, to see whether it answers."""

import asyncio
import time
from contextlib import aclosing
from typing import Any

from proxy.errors import ConfigError, ProviderError, redact
from proxy.events import commits
from proxy.upstream import Upstream

LIMIT = 15.0  # seconds


async def probe(upstream: Upstream) -> dict[str, Any]:
    """Asks past circuit, retries and figures: `{"ok", "milliseconds"}`, or `{"ok", "error", "kind"}`.

    Reads up to the first token. Vendors do not agree on the name of a limit of tokens, so there is none.
    """
    began = time.monotonic()
    upstream.hold()  # should it be removed meanwhile
    try:
        async with asyncio.timeout(LIMIT):
            await upstream.prepare()
            question = [{"role": "user", "content": "Say hi."}]
            async with aclosing(upstream.adapter.stream_chat(question)) as events:
                async for event in events:
                    if commits(event):
                        break
    except TimeoutError:
        return {"ok": False, "kind": "timeout", "error": f"no token within {LIMIT:g} s"}
    except ProviderError as error:
        return {"ok": False, "kind": error.kind, "error": redact(error.message, upstream.config.secrets())}
    except ConfigError as error:
        return {"ok": False, "kind": "config", "error": error.message}
    except Exception as error:  # an adapter may be a plugin's
        return {"ok": False, "kind": "server", "error": type(error).__name__}
    finally:
        upstream.let_go()
    return {"ok": True, "milliseconds": round((time.monotonic() - began) * 1000, 1)}
