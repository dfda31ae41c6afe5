"""The seam for those who watch: told of every stream, without a hand in any."""

from proxy.journey import Journey


class Monitor:
    """Override what you want to be told of. Called in the event loop: be quick, and leave the journey as it is.

    What a monitor raises goes to the log, and harms nobody's stream.
    """

    def began(self, journey: Journey) -> None:
        """A request (or one source of one) is on its way: `journey.id`, `.model`, `.mode`."""

    def ended(self, journey: Journey) -> None:
        """It is over: `journey.provider`, `.attempts`, `.failures`, `.end`, `.usage`, `.seconds`, `.first_token`."""
