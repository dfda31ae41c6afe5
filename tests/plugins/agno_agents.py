"""The agents of an operator, whose models ask the server that UPSTREAM names."""

import os

from agno.agent import Agent
from agno.models.openai.like import OpenAILike


def weather(city: str) -> str:
    """What the sky over a city is like."""
    return f"sunny in {city}"


writer = Agent(
    name="writer",
    model=OpenAILike(id="m", base_url=os.environ.get("UPSTREAM"), api_key="sk-agent-0123456789", max_retries=5),
    tools=[weather],
    retries=2,
)
