"""The command line: python -m proxy serve | check | chat"""

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

from proxy.errors import ConfigError

DESCRIPTION = "Weir, a unified LLM proxy: any OpenAI SDK in front, any provider behind, and streams that end honestly."
EPILOG = """\
environment:
  WEIR_API_KEYS    keys for /v1, separated by commas       REDIS_URL     lets replicas share providers and figures
  WEIR_ADMIN_KEY   key for /providers                      WEIR_DRAIN    seconds of service after SIGTERM (5)
  WEIR_LOG_LEVEL   DEBUG, INFO, WARNING or ERROR           WEIR_GRACE    seconds for running streams then (30)
"""


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m proxy", description=DESCRIPTION, epilog=EPILOG, formatter_class=plain
    )
    commands = parser.add_subparsers(required=True, metavar="serve | check | chat")

    serve = commands.add_parser("serve", help="run the proxy", epilog=EPILOG, formatter_class=plain)
    known = os.environ.get("WEIR_CONFIG") or ("providers.yaml" if Path("providers.yaml").is_file() else None)
    serve.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=known,
        help="by default WEIR_CONFIG, or ./providers.yaml if it is there",
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on; any but loopback needs keys")
    serve.add_argument("--port", type=port, default=8000)
    serve.add_argument("--workers", type=workers, default=1, help="processes; more than one needs REDIS_URL")
    serve.set_defaults(run=_serve)

    check = commands.add_parser("check", help="say everything wrong with a configuration")
    check.add_argument("file", type=Path, metavar="FILE")
    check.set_defaults(run=_check)

    chat = commands.add_parser("chat", help="talk to a running Weir in this terminal")
    chat.add_argument("--model", help="a name from /v1/models; the first one by default")
    chat.add_argument("--url", default="http://127.0.0.1:8000", help="where Weir listens (%(default)s)")
    chat.add_argument("--key", default=os.environ.get("WEIR_API_KEY"), help="an API key (or WEIR_API_KEY)")
    chat.set_defaults(run=_chat)
    return parser


def port(text: str) -> int:
    if not 0 <= (number := int(text)) <= 65535:
        raise argparse.ArgumentTypeError("must be between 0 and 65535")
    return number


def workers(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _serve(options: argparse.Namespace) -> int:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it means: read the file again; which is still to be read
    from proxy.logs import configure
    from proxy.server import check_exposure, serve
    from proxy.settings import Settings
    from proxy.state.store import open_store
    from proxy.weir import check

    settings = Settings.from_environment(os.environ)
    check_exposure(settings, options.host, options.workers)
    if settings.redis_url:
        open_store(settings.redis_url.get_secret_value())  # is it one that can be understood?
    configure(settings.log_level)
    if options.config:
        asyncio.run(check(options.config))
        os.environ["WEIR_CONFIG"] = str(options.config.absolute())  # links stay: Kubernetes swaps them
    serve(settings, options.host, options.port, options.workers)
    return 0


def _check(options: argparse.Namespace) -> int:
    from proxy.weir import check

    providers = asyncio.run(check(options.file))
    print(f"{options.file}: {len(providers)} providers, all well formed: {', '.join(providers) or 'none'}")
    return 0


def _chat(options: argparse.Namespace) -> int:
    from proxy.terminal import chat

    return chat(options.url, options.model, options.key)


if __name__ == "__main__":
    sys.exit(main())
