"""When a provider is left out, and how it comes back. Pure: time comes in as an argument, in seconds since 1970."""

import random

import msgspec

FAILURES = 5  # in a row, on one replica
EJECTION = 30.0  # seconds, times the number of ejections
MOST_EJECTIONS = 10
FORGIVEN_AFTER = 600.0  # seconds in service after which ejections count from one again


class Verdict(msgspec.Struct, frozen=True):
    """What the fleet knows of a provider: all that replicas share. The higher `generation` is the newer verdict."""

    generation: int = 0
    open: bool = False
    until: float = 0.0  # left out until then; then one probe
    ejections: int = 0
    since: float = 0.0

    def outranks(self, other: "Verdict") -> bool:
        return (self.generation, self.open, self.until) > (other.generation, other.open, other.until)


class Circuit:
    """One replica's view of one provider. `changed`: the verdict is ours and the fleet does not have it yet."""

    def __init__(self) -> None:
        self.verdict = Verdict()
        self.changed = False
        self.probe: object | None = None  # the request of this replica that is the fleet's one probe
        self.ask_again = 0.0  # another replica holds it: do not ask before then
        self._failures = 0

    @property
    def generation(self) -> int:
        """To be remembered when an attempt starts, and given back with its result."""
        return self.verdict.generation

    def usable(self, now: float) -> bool:
        """In service, or due for a probe that is not under way."""
        verdict = self.verdict
        return not verdict.open or (now >= max(verdict.until, self.ask_again) and self.probe is None)

    def first_token(self, generation: int, now: float) -> None:
        """An attempt got its first token: whoever was left out is back in service."""
        if generation == self.verdict.generation and self.verdict.open:
            self._rule(Verdict(generation + 1, False, 0.0, self.verdict.ejections, now))

    def succeeded(self, generation: int) -> None:
        """An attempt ended well."""
        if generation == self.verdict.generation:
            self._failures = 0

    def failed(self, generation: int, now: float) -> None:
        """An attempt failed in a way that trips. Results from before the last verdict say nothing about today."""
        verdict = self.verdict
        if generation != verdict.generation or (verdict.open and self.probe is None):
            return
        self._failures += 1
        if self._failures < FAILURES and not verdict.open:
            return
        forgiven = not verdict.open and now - verdict.since > FORGIVEN_AFTER
        ejections = min(1 if forgiven else verdict.ejections + 1, MOST_EJECTIONS)
        pause = EJECTION * ejections * random.uniform(0.9, 1.1)
        self._rule(Verdict(generation + 1, True, now + pause, ejections, now))

    def forgive(self, now: float) -> None:
        """Puts the provider back in service: it was changed, so what it did before says nothing."""
        if self.verdict.open:
            self._rule(Verdict(self.generation + 1, since=now))

    def learn(self, verdict: Verdict) -> None:
        """Takes over what another replica found, if it is newer."""
        if verdict.outranks(self.verdict):
            self._rule(verdict)
            self.changed = False

    def _rule(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.changed = True
        self.probe = None
        self._failures = 0
