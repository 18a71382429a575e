"""The command `export`. Takes a bundle; gives a folder that runs without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from duovox.commands.options import require_extra
from duovox.contracts import ConfigError
from duovox.shipped import DEFAULT_BUNDLE

if TYPE_CHECKING:
    from duovox.lite.manifest import PrecisionName


def export(
    bundle: Positional[str] = DEFAULT_BUNDLE,
    /,
    *,
    out: Path,
    precision: Literal["fp32", "fp16", "int8"] | None = None,
    web: bool = False,
    ort_web: Path | None = None,
    trust_code: bool = False,
    force: bool = False,
) -> None:
    """Write a bundle as ONNX graphs that run without PyTorch (`duovox.lite`), or as a page that needs no server.

    Each graph, and a clip of each word, is compared with PyTorch; what the precision costs is printed and kept in the manifest.

    Args:
        bundle: Name of a bundle in the package, a bundle folder, or a hub id.
        out: The folder to write.
        precision: How weights are stored (networks compute in float32): fp32, for a page fp16, if left out. A bundle's own weights are
            float16, so fp16 loses next to nothing.
        web: Write a static page that speaks and listens in the browser, for any host of files.
        ort_web: The folder of the npm package onnxruntime-web, for --web; fetched by npm if left out.
        trust_code: Run the code that a bundle of someone else's classifier names or holds.
        force: Replace an exported voice that is there.
    """
    require_extra("export", ("onnx", "onnxscript", "onnxruntime"))
    from duovox.exporting.folder import check_place, write_exported
    from duovox.exporting.folder import export as export_voice
    from duovox.lite.manifest import MANIFEST
    from duovox.voice import Duovox

    if ort_web is not None and not web:
        raise ConfigError("--ort-web belongs to --web")
    if web:
        _export_site(bundle, out, precision or "fp16", ort_web, trust_code, force)
        return
    check_place(out, MANIFEST, force)
    voice = Duovox.from_pretrained(bundle, trust_code=trust_code)
    exported = export_voice(voice, precision or "fp32", print)
    write_exported(exported, out, force)
    print(_summary(out, exported.files))


def _export_site(bundle: str, out: Path, precision: PrecisionName, ort_web: Path | None, trust_code: bool, force: bool) -> None:
    require_extra("serve", ("fastapi", "pydantic"))
    from duovox.exporting.folder import check_place
    from duovox.exporting.folder import export as export_voice
    from duovox.exporting.runtime import runtime_files
    from duovox.exporting.site import SERVICE_WORKER, fitting_site, write_site
    from duovox.voice import Duovox

    check_place(out, SERVICE_WORKER, force)
    runtime = runtime_files(ort_web)
    voice = Duovox.from_pretrained(bundle, trust_code=trust_code)
    files, note = fitting_site(export_voice(voice, precision, print), voice, bundle, runtime)
    write_site(files, out, force)
    if note:
        print(note)
    print(_summary(out, files))


def _summary(out: Path, files: dict[str, bytes]) -> str:
    size = sum(len(content) for content in files.values())
    return f"{out}: {len(files)} files, {size / 2**20:.1f} MiB"
