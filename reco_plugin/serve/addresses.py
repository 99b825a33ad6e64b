"""Which addresses of the internet are public: the rest is the operator's own network, or nobody's."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TypeAlias

Address: TypeAlias = "IPv4Address | IPv6Address"

_HOLDS_IPV4 = (  # prefixes whose last 32 bits are an IPv4 address that a gateway or the kernel may reach instead
    IPv6Network("::/96"),  # IPv4-compatible
    IPv6Network("::ffff:0:0/96"),  # IPv4-mapped
    IPv6Network("::ffff:0:0:0/96"),  # IPv4-translated
    IPv6Network("64:ff9b::/96"),  # NAT64
)


def is_public(text: str) -> bool:
    """Whether an address may be connected to on behalf of a stranger.

    >>> [is_public(address) for address in ("93.184.215.14", "127.0.0.1", "::ffff:10.0.0.1", "169.254.169.254")]
    [True, False, False, False]
    """
    address = ip_address(text)
    return all(one.is_global and not one.is_multicast for one in (address, *_inside(address)))


def _inside(address: Address) -> list[Address]:
    """IPv4 addresses that are written into an IPv6 address."""
    if isinstance(address, IPv4Address):
        return []
    found: list[Address] = []
    if any(address in network for network in _HOLDS_IPV4):
        found.append(IPv4Address(int(address) & 0xFFFF_FFFF))
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    if address.teredo is not None:
        found += address.teredo
    return found
