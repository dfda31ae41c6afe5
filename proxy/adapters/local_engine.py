"""The program of provider type `local`'s child process: one model, served in OpenAI's wire on loopback.

It is run as a file, not as a module of `proxy`, so that it imports nothing of Weir. It reads its plan, one line of
JSON, from stdin, writes one line, its address, to stdout once it serves, and ends when stdin ends: with its parent,
however that died. What it says before it serves goes to stderr; after that it is silent, as it may quote prompts.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import time
from typing import Any

PR_SET_PDEATHSIG = 1
TOKENS_AT_ONCE = 64  # of a prompt: a client that leaves, or another stream, waits for no more than these


def main() -> None:
    """Serves until stdin ends."""
    die_with_parent()
    close_the_rest()
    report = os.dup(1)
    os.dup2(2, 1)  # whatever the engine prints is noise; stdout carries the address alone
    with open(0, "rb", buffering=0, closefd=False) as stdin:
        plan = json.loads(stdin.readline())
    watch = threading.Thread(target=end_with_stdin, daemon=True)
    watch.start()
    try:
        server = serve(plan)
        threading.Thread(target=end_when_stuck, args=(server, plan["patience"]), daemon=True).start()
        os.write(report, server.listening_address.encode())
    except Exception as error:  # whatever it is, the parent reads it
        flush_log()
        sys.exit(repr(error))
    os.close(report)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    watch.join()


def die_with_parent() -> None:
    """Asks Linux for a SIGKILL at the parent's death: stdin's end waits while the engine loads or hangs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def close_the_rest() -> None:
    """uvloop's children inherit what asyncio's do not: second ends of our own pipes, and sockets Weir listens on."""
    if os.path.isdir("/dev/fd"):
        os.closerange(3, max(map(int, os.listdir("/dev/fd"))) + 1)


def end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)  # no destructors: the engine's threads may be in the middle of anything


def end_when_stuck(server: Any, patience: float) -> None:
    """Has SIGALRM end the process where the engine's loop does not turn for so many seconds: one that spins on a
    grammar would serve nobody ever again. That it turns shows where it tells its figures.
    """
    while True:
        signal.setitimer(signal.ITIMER_REAL, patience)
        server.handle_metrics()
        signal.setitimer(signal.ITIMER_REAL, 0)
        time.sleep(patience / 10)


def flush_log() -> None:
    """Waits until llama.cpp has said why it failed: its log has a thread of its own, which the exit may cut off."""
    if library := sys.modules.get("xllamacpp.xllamacpp"):
        native = ctypes.CDLL(library.__file__)
        with contextlib.suppress(AttributeError):  # C++'s names for them: another build may have others
            log, flush = native._Z15common_log_mainv, native._Z16common_log_flushP10common_log
            log.restype, flush.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
            flush(log())


def serve(plan: dict[str, Any]) -> Any:
    """The running server. Raises RuntimeError if the model cannot be loaded; llama.cpp then says why on stderr."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = plan["path"]
    params.model_alias = {plan["name"]}  # else every chunk carries the file's path
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.api_keys = [plan["key"]]
    params.n_parallel = plan["parallel"]
    params.n_ctx = plan["n_ctx"] * plan["parallel"]  # llama.cpp divides it among the streams
    params.n_batch = params.n_ubatch = TOKENS_AT_ONCE
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = plan["threads"]
    params.cache_ram_mib = 0  # by default up to 8 GiB of old prompts
    params.ui = params.endpoint_slots = params.warmup = params.fit_params = False
    params.endpoint_metrics = True  # for `end_when_stuck`
    params.verbosity = 2  # warnings
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
