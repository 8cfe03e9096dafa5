"""Which machine an address names, read the way the HTTP client reads it."""

from __future__ import annotations

import ipaddress

import httpx

_PORTS = {"http": 80, "https": 443}


def origin(url: httpx.URL) -> str:
    """Return scheme, host and port, always with the port: what a permission and a key are bound to."""
    host = url.raw_host.decode("ascii").rstrip(".").lower()
    port = url.port or _PORTS.get(url.scheme, 0)
    return f"{url.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its very name; no name but ``localhost`` is looked up or believed."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
