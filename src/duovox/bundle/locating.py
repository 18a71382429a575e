"""Where a bundle lies: takes a name, a folder or a hub id, gives the folder."""

from __future__ import annotations

from pathlib import Path

from duovox.bundle.contents import FILES
from duovox.contracts import BundleError
from duovox.shipped import BUNDLES


def locate(source: str | Path) -> Path:
    """The folder of a bundle given by name, folder or hub id, tried in this order. Raises `BundleError`.

    A name in the package comes first, so that the default bundle does not depend on where one stands; `./name` is the folder.
    """
    names = packaged()
    if source in names:
        return BUNDLES / source
    if Path(source).is_dir():
        return Path(source)
    if isinstance(source, str) and source.count("/") == 1 and not source.startswith((".", "/")):
        return _fetch_from_hub(source)
    raise BundleError(
        f"no bundle at {source}; give a bundle folder, a hub id owner/name, or one of those in the package: {', '.join(names) or 'none'}"
    )


def packaged() -> list[str]:
    """The names of the bundles in the package."""
    return sorted(p.name for p in BUNDLES.iterdir() if p.is_dir()) if BUNDLES.is_dir() else []


def _fetch_from_hub(source: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise BundleError(f"no folder {source}; to fetch it from the hub: pip install 'duovox[hub]'") from None
    try:
        return Path(snapshot_download(source, allow_patterns=list(FILES)))
    except Exception as error:  # the hub client raises many kinds; each means that there is no bundle to open
        raise BundleError(f"no folder {source}, and the hub did not give it: {str(error).splitlines()[0]}") from None
