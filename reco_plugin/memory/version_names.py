"""Names of the versions of a memory: ``shop--v1``, ``shop--v2`` and so on behind the name ``shop``."""


def version_name(name: str, number: int) -> str:
    """Name of a version.

    >>> version_name("reco", 3)
    'reco--v3'
    """
    return f"{name}--v{number}"


def version_number(name: str, version: str) -> int | None:
    """The number in a version's name; None if it is not a version of this name.

    >>> version_number("reco", "reco--v3"), version_number("reco", "shop--v3")
    (3, None)
    """
    start, _, number = version.rpartition("--v")
    return int(number) if start == name and number.isdecimal() else None
