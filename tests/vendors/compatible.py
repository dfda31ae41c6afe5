"""A vendor that speaks OpenAI's wire, and that LiteLLM reaches all the same."""

from tests.vendors.azure import FakeAzure
from tests.vendors.fake import KEY, Answer, Request


class FakeCompatible(FakeAzure):
    """Refuses a wrong key."""

    path = "/chat/completions"

    def fault(self, request: Request) -> Answer | None:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return Answer(status=401, error={"error": {"code": "401", "message": "Access denied"}})
        return None
