"""A fake upstream that breaks off in mid-answer: two tokens before its end the connection is gone."""

from bench.upstream import Upstream, Wire

LACKING = 2  # tokens that are never said


class CutUpstream(Upstream):
    def _say(self, wire: Wire, token: bytes | None, pace: float, due: float, left: int) -> None:
        if left == LACKING:
            self._transport.abort()
        else:
            super()._say(wire, token, pace, due, left)
