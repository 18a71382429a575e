"""The command `serve`. Takes a bundle; gives an HTTP server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from duovox.commands.options import require_extra
from duovox.contracts import GuideError
from duovox.shipped import DEFAULT_BUNDLE

if TYPE_CHECKING:
    from duovox.voice import Duovox


def serve(
    bundle: str = DEFAULT_BUNDLE,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    guide: tuple[str, ...] = (),
    trust_code: bool = False,
    max_batch: int = 16,
    wait_ms: float = 5,
    queue: int = 64,
    timeout: float = 60,
    token_file: Path | None = None,
    cors: tuple[str, ...] = (),
    max_upload_mb: float = 5,
    max_upload_seconds: float = 30,
) -> None:
    """Serve a page to speak and listen with, and the HTTP API behind it (see /docs there). Ctrl-C or SIGTERM ends it.

    Args:
        bundle: Name of a bundle in the package, a bundle folder, or a hub id.
        host: Address to listen on; 0.0.0.0 is every address of this machine.
        port: Port to listen on; 0 takes a free one.
        device: Where to compute; auto takes CUDA where there is one.
        guide: What may steer clips beside the word, in the API and on the page: pitch, loudness, or folders made by `duovox guide`.
        trust_code: Run the code that a bundle or a guide of someone else's classifier names or holds.
        max_batch: Clips computed at once.
        wait_ms: How long the first clip of a batch waits for others.
        queue: With so many clips waiting, further requests are turned away (429).
        timeout: Seconds until a request is given up (504).
        token_file: A file with a token that requests to /v1 and /metrics must then bring (Authorization: Bearer ...).
        cors: Origins of other pages that may use the API, as https://example.org.
        max_upload_mb: Largest sound file that may be sent.
        max_upload_seconds: Longest sound that may be sent.
    """
    require_extra("serve", ("fastapi", "uvicorn", "python_multipart", "prometheus_client"))
    from duovox.serve.run import serve as run_server
    from duovox.serve.settings import ServeConfig, read_token

    config = ServeConfig(
        bundle=bundle,
        host=host,
        port=port,
        max_batch=max_batch,
        wait_seconds=wait_ms / 1000,
        queue=queue,
        timeout=timeout,
        token=read_token(token_file) if token_file else None,
        cors=cors,
        upload_mb=max_upload_mb,
        upload_seconds=max_upload_seconds,
    )

    def load() -> Duovox:
        from duovox.devices import choose_device
        from duovox.voice import Duovox

        voice = Duovox.from_pretrained(bundle, trust_code=trust_code).to(choose_device(device))
        for folder in guide:
            if not voice.add_guide(folder, trust_code=trust_code).labels:
                raise GuideError(
                    f"the guide {folder} wants a sound, which no request can bring: duovox guide {folder} --references ANN.wav --out voices"
                )
        return voice

    run_server(load, config)
