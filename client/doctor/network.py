"""The way to the coordinator: names, connection, TLS, clock, and this node's own key. Nothing is sent but a request.

The request goes the way the node goes: with the same library, so through the same proxy, and past it where NO_PROXY
says so.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import stat
import time
import urllib.request
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client.center.config import CenterConfig
from client.doctor.finding import ERROR, NOTE, WARNING, Finding
from common.errors import ConfigError

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 5.0
EXPIRES_SOON_DAYS = 30
AHEAD_S, BEHIND_S = 4.0, 300.0  # Flower refuses a node whose signed time is 5 s early or 305 s late


def check_network(config: CenterConfig) -> Iterator[Finding]:
    """Everything between this machine and the coordinator, and whether the node runs."""
    from client.commands.health import probe

    if not config.server:
        yield Finding(NOTE, "network", "No server is set: this is a center of a simulation.")
        return
    yield from _key(Path(config.key))
    yield from _partners(config)
    yield from _server(config)
    answer = probe(config.health)
    yield Finding(NOTE, "network", f"The node on this machine: {answer}.")


def _key(path: Path) -> Iterator[Finding]:
    from client.node.keys import load_key

    try:
        load_key(path)
    except ConfigError as error:
        yield Finding(ERROR, "network", "This node has no private key that can be read.", str(error))
        return
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        yield Finding(ERROR, "privacy", "Others on this machine may read the node's private key.", f"chmod 600 {path}")


def _partners(config: CenterConfig) -> Iterator[Finding]:
    """Whose keys this node knows for secure sums, where it takes part in any."""
    from client.node.keys import partners_of

    if not config.partners:
        if config.policy.require_secure_aggregation:
            yield Finding(
                ERROR,
                "network",
                "The policy requires secure sums, and no other hospital's key is known: every step is declined.",
                "Put each hospital's CODE.pub, from itself, into a folder and name it partners in center.yaml.",
            )
        return
    try:
        known = sorted({*partners_of(Path(config.partners))} - {config.code})
    except ConfigError as error:
        yield Finding(ERROR, "network", "The keys of the other hospitals cannot be read.", str(error))
        return
    yield Finding(
        NOTE, "network", f"Secure sums are possible with {len(known)} hospitals: {', '.join(known) or 'none'}."
    )


def _server(config: CenterConfig) -> Iterator[Finding]:
    import httpx

    try:
        context = ssl.create_default_context(cafile=config.server_certificate or None)
    except (OSError, ssl.SSLError):
        yield Finding(
            ERROR,
            "network",
            "The file of the coordinator's certificate authority is missing or no certificate.",
            f"Ask the coordinator for it and put it at {config.server_certificate}.",
        )
        return
    proxy = proxy_to(config.server)
    if proxy:
        yield Finding(NOTE, "network", f"The way to the coordinator goes through the proxy {proxy} (HTTPS_PROXY).")
    try:
        with (
            httpx.Client(verify=context, timeout=TIMEOUT_S) as client,
            client.stream("GET", f"https://{config.server}/health") as response,
        ):
            yield from _certificate(response.extensions["network_stream"].get_extra_info("ssl_object"))
            yield from _answer(response)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        yield _unreachable(config, error, proxy)


def proxy_to(server: str) -> str:
    """host:port of the proxy that the environment names for an address, without its password; empty for none."""
    host = server.rpartition(":")[0].strip("[]")
    found = urllib.request.getproxies_environment()
    url = found.get("https") or found.get("all") or ""
    passes_by: Any = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed lacks it
    if not url or passes_by(host, found):
        return ""
    return re.sub(r"^\w+://|^[^/@]*@|/.*$", "", re.sub(r"^(\w+://)?[^/@]*@", "", url))


def _certificate(connection: ssl.SSLSocket) -> Iterator[Finding]:
    ends = ssl.cert_time_to_seconds(str((connection.getpeercert() or {}).get("notAfter")))
    days = int((ends - time.time()) // 86_400)
    if days < EXPIRES_SOON_DAYS:
        yield Finding(
            WARNING,
            "network",
            f"The coordinator's certificate ends in {days} days.",
            "Tell the coordinator to renew it.",
        )
    yield Finding(NOTE, "network", f"TLS handshake with the coordinator: {connection.version()}, {days} days left.")


def _answer(response: httpx.Response) -> Iterator[Finding]:
    if response.status_code == 200:
        yield Finding(NOTE, "network", "The coordinator answers and says that it is healthy.")
    elif response.status_code in (403, 404):
        yield Finding(NOTE, "network", "The coordinator answers; it does not show its health to hospitals.")
    else:
        yield Finding(
            WARNING,
            "network",
            f"The coordinator answers with HTTP {response.status_code}.",
            "Ask whether its server runs.",
        )
    date = response.headers.get("Date")
    if date is None:
        return
    ahead = time.time() - parsedate_to_datetime(date).timestamp() - 1.0  # the header drops up to a second
    if ahead > AHEAD_S or ahead < -BEHIND_S:
        yield Finding(
            ERROR,
            "network",
            f"This machine's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the coordinator's.",
            "Keep both with NTP: Flower refuses a node whose clock is 5 s ahead or 305 s behind.",
        )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from: libraries wrap the system's own, which says more."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _unreachable(config: CenterConfig, wrapped: Exception, proxy: str) -> Finding:
    """The reason in words, and whom to ask."""
    import httpx

    if isinstance(wrapped, httpx.ProxyError):
        return Finding(
            ERROR,
            "network",
            f"The proxy {proxy} does not let this machine through to {config.server} ({wrapped}).",
            "Ask your IT to allow it, or to name the coordinator in NO_PROXY where it can be reached directly.",
        )
    telling = (socket.gaierror, ssl.SSLError, ConnectionRefusedError, TimeoutError)
    error = next((cause for cause in _causes(wrapped) if isinstance(cause, telling)), wrapped)
    error = TimeoutError() if isinstance(wrapped, httpx.TimeoutException) else error
    what, remedy = "does not answer", "Ask the coordinator whether the server runs, and your IT for the way out."
    if isinstance(error, socket.gaierror):
        what, remedy = "has a name that this machine cannot resolve", "Check server, and your DNS."
    elif isinstance(error, ssl.SSLCertVerificationError):
        what = f"shows a certificate that is not trusted ({error.verify_message})"
        remedy = "Check that server_certificate is theirs and that server is the name in the certificate."
    elif isinstance(error, ssl.SSLError):
        what, remedy = "does not speak TLS", "Never connect without it: check host and port, then ask the coordinator."
    elif isinstance(error, ConnectionRefusedError):
        what = "refuses the connection"
    elif isinstance(error, TimeoutError):
        what, remedy = f"does not answer within {TIMEOUT_S:g} s", "Ask your IT for outbound TCP to that port."
    through = f" through the proxy {proxy}" if proxy else ""
    return Finding(ERROR, "network", f"The coordinator {config.server} {what}{through}.", remedy)
