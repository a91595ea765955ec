"""Files from elsewhere that are fetched once and kept."""

from __future__ import annotations

from pathlib import Path

from atomvision_hub._files import write_bytes
from atomvision_hub.errors import AtomVisionError, NetworkNeededError


def downloaded(path: Path, url: str, *, largest: int, what: str) -> Path:
    """Return a file, downloaded where it is absent.

    Parameters
    ----------
    path
        Where it is kept.
    url
        Where it comes from.
    largest
        Most bytes that are taken.
    what
        Its name for the user.

    Raises
    ------
    NetworkNeededError
        When it cannot be downloaded.
    AtomVisionError
        When the server sends more than `largest` bytes.
    """
    import requests

    if path.is_file():
        return path
    try:
        with requests.get(url, stream=True, timeout=30) as answer:
            answer.raise_for_status()
            content = bytearray()
            for part in answer.iter_content(2**20):
                content += part
                if len(content) > largest:
                    raise AtomVisionError(f"{url} sends more than {largest:,} bytes; look at what it is")
        write_bytes(path, bytes(content))
    except requests.RequestException:
        name = "" if what == path.name else f" as {path.name}"
        raise NetworkNeededError(
            f"{what} could not be downloaded from {url}; put it{name} into {path.parent}"
        ) from None
    return path
