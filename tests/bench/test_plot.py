"""The picture of what a token costs."""

from bench.plot import TITLE, bars
from bench.tokens import TOKEN


def test_it_reads_what_the_bench_writes() -> None:
    assert TITLE == TOKEN


def test_proxies_are_sorted_and_nothing_else_is_shown() -> None:
    rows = {
        "direct": [1.0],
        "the load generator": [9.0],
        "litellm": [640.0, 430.0, 500.0],
        "weir, mode chunked": [58.0],
        "weir": [95.0, 89.0, 101.0],
        "nginx": [4.0],
    }
    found = bars(rows)
    assert [bar.name for bar in found] == [
        "nginx, a plain reverse proxy",
        "Weir, mode chunked",
        "Weir, OpenAI's wire",
        "LiteLLM's proxy",
    ]
    assert [(bar.ours, bar.first) for bar in found] == [(False, False), (True, False), (True, True), (False, False)]
    assert (found[-1].least, found[-1].median, found[-1].most) == (430.0, 500.0, 640.0)
