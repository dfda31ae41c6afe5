import os

import hypothesis
import pytest

# A busy machine is not a failure, and what CI runs is the same every time; at home the examples are new each time.
hypothesis.settings.register_profile("weir", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("weir")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Weir runs on asyncio."""
    return "asyncio"
