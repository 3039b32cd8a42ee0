"""Addresses and paths of datasets that are safe to hand on: the host puts both into the command lines of a shell."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from koda_audit.errors import InputError

_ADDRESS = re.compile(r"https?://[\w.~:@\[\]-]+(/[\w.~:@%+,=/-]*)?(\?[\w.~:@%+,=&/-]*)?", re.ASCII)
# What a shell obeys, and what would begin an option of the commands in it. A blank alone only makes a download fail.
_OBEYED = re.compile(r"[;&|<>$`'\"\\()*?\[\]{}!#\x00-\x1f\x7f]|(^|\s)-")


def is_remote(root: str) -> bool:
    """Whether a dataset lies at an address rather than in a folder."""
    return "://" in root


def check_address(address: str) -> None:
    """Refuse an address that is more than one.

    Raises:
        InputError: another protocol than http and https, no machine, or characters that an address writes as %XX.
    """
    try:
        named = urlsplit(address).hostname
    except ValueError:
        named = None
    if not named or not _ADDRESS.fullmatch(address):
        raise InputError(
            f"'{address}' is no plain address: expected http:// or https://, a machine and a path, with all but "
            "letters, digits and .~:@+,=-_/ written as %XX"
        )


def check_plain(what: str, text: str) -> None:
    """Refuse a path or name that a shell would not take as it stands.

    Raises:
        InputError: it holds a character or an option that a shell, or a command called by it, obeys.
    """
    found = _OBEYED.search(text)
    if found:
        raise InputError(
            f"{what} '{text}' holds {found[0].strip()!r}, and clip_benchmark hands it to a shell for its downloads: "
            "choose a path without it"
        )
