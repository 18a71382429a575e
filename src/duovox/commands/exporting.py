"""The command `export`. Takes a bundle; gives a folder that runs without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from duovox.commands.options import require_extra


def export(
    bundle: Positional[str] = "sc06",
    /,
    *,
    out: Path,
    precision: Literal["fp32", "fp16", "int8"] = "fp32",
    trust_code: bool = False,
    force: bool = False,
) -> None:
    """Write a bundle as ONNX graphs that run without PyTorch (`duovox.lite`).

    Each graph, and a clip of each word, is compared with PyTorch; what the precision costs is printed and kept in the manifest.

    Args:
        bundle: Name of a bundle in the package, a bundle folder, or a hub id.
        out: The folder to write.
        precision: How weights are stored; networks compute in float32. A bundle's weights are float16, so fp16 loses next to nothing.
        trust_code: Run the code that a bundle of someone else's classifier names or holds.
        force: Replace an exported voice that is there.
    """
    require_extra("export", ("onnx", "onnxscript", "onnxruntime"))
    from duovox.exporting.folder import check_place, write_exported
    from duovox.exporting.folder import export as export_voice
    from duovox.lite.manifest import MANIFEST
    from duovox.voice import Duovox

    check_place(out, MANIFEST, force)
    voice = Duovox.from_pretrained(bundle, trust_code=trust_code)
    exported = export_voice(voice, precision, print)
    write_exported(exported, out, force)
    size = sum(len(content) for content in exported.files.values())
    print(f"{out}: {', '.join(sorted(exported.files))}, {size / 1e6:.1f} MB")
