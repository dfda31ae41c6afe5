"""Providers taken into service and out of it while Weir runs, for whoever asks: a client over REST, or a program."""

from typing import Any, NamedTuple

from pydantic import ValidationError

from proxy.errors import RequestError
from proxy.probe import probe
from proxy.provider import ProviderConfig, mistakes
from proxy.upstream import Upstream
from proxy.weir import Weir


class Registered(NamedTuple):
    """A provider that is in service, and what it said when it was probed, if it was."""

    upstream: Upstream
    verified: dict[str, Any] | None


def checked(fields: dict[str, Any]) -> ProviderConfig:
    """Raises RequestError that names every field at fault."""
    try:
        return ProviderConfig(**fields)
    except ValidationError as error:
        told = [(".".join(map(str, where)), what) for where, what in mistakes(error)]
        message = "; ".join(f"{where}: {what}" if where else what for where, what in told)
        raise RequestError(message, code="invalid_provider", param=told[0][0] or None) from None


def find(weir: Weir, provider_id: str) -> Upstream:
    """Raises RequestError (404), naming those there are."""
    upstream = weir.router.get(provider_id)
    if upstream is None:
        known = ", ".join(sorted(other.id for other in weir.router)) or "none"
        message = f"there is no provider {provider_id!r}; registered: {known}"
        raise RequestError(message, status=404, code="provider_not_found")
    return upstream


def check_managed(weir: Weir, provider_id: str) -> None:
    """Raises RequestError (409) if that provider stands in the file."""
    upstream = weir.router.get(provider_id)
    if upstream is not None and not upstream.managed:
        message = f"provider {provider_id!r} stands in providers.yaml; change it there, Weir reads the file again"
        raise RequestError(message, status=409, code="provider_read_only")


async def register(
    weir: Weir, config: ProviderConfig, *, verify: bool = False, instead_of: str | None = None
) -> Registered:
    """Registers a provider with the whole fleet, or replaces the registration of that id.

    With `verify` it is asked something first, and registered whatever comes of that. Raises ConfigError if it can never
    work, RequestError (409) if it stands in the file, StoreAway; store.Lost if `instead_of` is registered no more.
    """
    check_managed(weir, config.provider_id)
    upstream = weir.router.build(config, managed=True)
    try:
        await upstream.prepare()
        verified = await probe(upstream) if verify else None
        await weir.fleet.register(upstream, instead_of)
    except BaseException:
        await upstream.retire()
        raise
    upstream.circuit.forgive(upstream.clock())
    return Registered(upstream, verified)


async def unregister(weir: Weir, provider_id: str) -> None:
    """Takes a provider out of service everywhere; its running streams end in peace. Raises RequestError, StoreAway."""
    check_managed(weir, find(weir, provider_id).id)
    await weir.fleet.unregister(provider_id)
