"""What is compared: each proxy before the same fake upstream, started the way its people start it."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from bench.processes import running

UPSTREAM = 18901  # its port; those of the proxies follow
FRESH = UPSTREAM + 30
KEY = "bench-key"
LITELLM = Path(".venv-litellm/bin/litellm")
# As its people advise for production: a key, errors alone in the log. And its own map of costs, for none is fetched.
LITELLM_ENVIRONMENT = {
    "LITELLM_MASTER_KEY": KEY,
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}
NGINX_CONF = """
worker_processes 1; pid {dir}/pid; error_log {dir}/error.log; daemon off;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir};
  uwsgi_temp_path {dir}; scgi_temp_path {dir};
  upstream fake {{ server 127.0.0.1:{upstream}; keepalive 1024; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; keepalive_requests 1000000;
    location / {{ proxy_pass http://fake; }}
  }}
}}
"""


@dataclass(frozen=True)
class Proxy:
    pid: int
    port: int


@contextmanager
def standing() -> Iterator[dict[str, Proxy]]:
    """All that are to be had, by name. `direct` is the upstream itself."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory()))
        python, ports = [sys.executable, "-m"], iter(range(UPSTREAM + 1, UPSTREAM + 20))
        proxies = {"direct": Proxy(stack.enter_context(running([*python, "bench.upstream", str(UPSTREAM)])), UPSTREAM)}

        def stand(name: str, port: int, command: list[str], **environment: str) -> None:
            proxies[name] = Proxy(stack.enter_context(running(command, **environment)), port)

        if nginx := shutil.which("nginx"):
            conf, port = directory / "nginx.conf", next(ports)
            conf.write_text(NGINX_CONF.format(dir=directory, upstream=UPSTREAM, port=port))
            stand("nginx", port, [nginx, "-c", str(conf)])
        for name in ("floor", "thin"):
            port = next(ports)
            stand(name, port, [*python, f"bench.{name}", str(port), str(UPSTREAM)])
        port = next(ports)
        stand("weir", port, serve(directory, port), **ENVIRONMENT)
        if redis := shutil.which("redis-server"):
            port, store = next(ports), next(ports)
            kept = ["--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--dir", str(directory)]
            stand("redis", store, [redis, "--port", str(store), "--bind", "127.0.0.1", *kept])
            url = f"redis://127.0.0.1:{store}"
            stand("weir on redis", port, serve(directory, port), **ENVIRONMENT, REDIS_URL=url)
        if os.environ.get("BENCH_LITELLM"):
            port, config = next(ports), directory / "litellm.yaml"
            model = {"model": "openai/fake", "api_base": f"http://127.0.0.1:{UPSTREAM}/v1", "api_key": "none"}
            config.write_text(yaml.safe_dump({"model_list": [{"model_name": "fake", "litellm_params": model}]}))
            command = [str(LITELLM), "--config", str(config), "--port", str(port), "--host", "127.0.0.1"]
            stand("litellm", port, command, **LITELLM_ENVIRONMENT)
        yield proxies


@contextmanager
def fresh(*, translated: bool = True) -> Iterator[Proxy]:
    """One more Weir, that has done nothing yet."""
    with (
        TemporaryDirectory() as directory,
        running(serve(Path(directory), FRESH, translated=translated), **ENVIRONMENT) as pid,
    ):
        yield Proxy(pid, FRESH)


# With every feature on: keys, figures, retries armed. The log is where it costs everybody the same: off.
ENVIRONMENT = {"WEIR_LOG_LEVEL": "WARNING", "WEIR_API_KEYS": KEY, "WEIR_ADMIN_KEY": "bench-admin"}


def serve(directory: Path, port: int, *, translated: bool = True) -> list[str]:
    """The command that serves the fake upstream through Weir, on every wire or on OpenAI's alone."""
    base, kinds = f"http://127.0.0.1:{UPSTREAM}", ["openai_compatible", "openai_compatible", "anthropic", "gemini"]
    names = ["fake", "fake2", "anthropic", "gemini"]
    bases = [f"{base}/v1", f"{base}/v1", base, base]
    providers = [
        {"provider_id": name, "provider_type": kind, "model_name": name, "base_url": url, "api_key": "none"}
        for name, kind, url in zip(names, kinds, bases, strict=True)
    ]
    config = directory / f"providers-{port}.yaml"
    config.write_text(yaml.safe_dump({"providers": providers if translated else providers[:2]}))
    return [sys.executable, "-m", "proxy", "serve", "--port", str(port), "--config", str(config)]
