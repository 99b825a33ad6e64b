"""Which addresses of the internet are public: the rest is the operator's own network, or nobody's.

By IANA's registries of special-purpose addresses: https://www.iana.org/assignments/iana-ipv4-special-registry and
https://www.iana.org/assignments/iana-ipv6-special-registry. What stands there is not public here, also where it can be
reached: relays, translators and sinks hold no image, and may lead back into the operator's network.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address

_UNICAST = IPv6Network("2000::/3")  # all that was ever given out; the rest is local, translated, multicast or free
_SPECIAL_6 = [IPv6Network(one) for one in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")]
_SPECIAL_4 = [
    IPv4Network(one)
    for one in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
]


def is_public(text: str) -> bool:
    """Whether an address may be connected to on behalf of a stranger.

    >>> [is_public(address) for address in ("93.184.215.14", "127.0.0.1", "::ffff:10.0.0.1", "169.254.169.254")]
    [True, False, False, False]
    """
    address = ip_address(text)
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_4)
    return address in _UNICAST and not any(address in network for network in _SPECIAL_6)
