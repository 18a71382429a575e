"""What goes over the wire, both ways; FastAPI checks requests against it and draws /openapi.json from it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from duovox.serve.settings import MAX_CLIPS, MAX_GAMMA, MAX_STEPS

Format = Literal["wav", "flac", "ogg"]
Sampler = Literal["heun", "dpmpp_2m", "euler_maruyama"]
VocoderChoice = Literal["neural", "griffin_lim"]

Sigma = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


class GenerateRequest(BaseModel):
    """Words to speak. What is left out is the bundle's own."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"label": "three", "seed": 7}]})

    label: Annotated[str, Field(max_length=100)] | None = Field(None, description="The word; null for whatever comes.")
    n: int = Field(1, strict=True, ge=1, le=MAX_CLIPS, description="How many clips; their seeds are seed, seed + 1, ...")
    seed: int = Field(0, strict=True, ge=0, le=2**63 - MAX_CLIPS, description="The same seed and settings give the same clip.")
    gamma: Annotated[float, Field(strict=True, ge=0, le=MAX_GAMMA, allow_inf_nan=False)] | None = Field(
        None, description="Strength of the guidance towards the label; 0 switches it off."
    )
    steps: Annotated[int, Field(strict=True, ge=1, le=MAX_STEPS)] | None = Field(None, description="Steps of the sampler.")
    sampler: Sampler | None = None
    interval: tuple[Sigma, Sigma | None] | None = Field(
        None, description="Guide only at noise levels between these two sigmas; null for no upper end."
    )
    vocoder: VocoderChoice | None = Field(None, description="How the mel becomes sound.")
    format: Format = Field("wav", description="Format of the sound in a JSON answer.")
    mel: bool = Field(False, strict=True, description="Also give each clip's log-mel as a picture.")
    frames: bool = Field(False, strict=True, description="Also give the guesses on the way from noise to the clip.")


class Picture(BaseModel):
    """A log-mel. Value = low + (high - low) * byte / 255; bytes row by row, the lowest band first, in base64."""

    rows: int
    columns: int
    low: float
    high: float
    data: str


class FrameReply(BaseModel):
    """The guess of the clean mel at noise level sigma."""

    sigma: float
    mel: Picture


class ClipReply(BaseModel):
    """One clip; `audio` is a whole sound file in base64, `probabilities` what the classifier hears in it."""

    label: str | None
    seed: int
    rate: int
    seconds: float
    media_type: Literal["audio/wav", "audio/flac", "audio/ogg"]
    audio: str
    probabilities: dict[str, float]
    mel: Picture | None
    frames: list[FrameReply] | None


class SettingsReply(BaseModel):
    """Settings a clip was, or would be, made with."""

    sampler: Sampler
    steps: int
    gamma: float
    interval: tuple[float, float | None]
    vocoder: VocoderChoice


class GenerateReply(BaseModel):
    """Clips, the settings they share, and how to make them without this server."""

    clips: list[ClipReply]
    settings: SettingsReply
    digest: str
    command: str
    python: str


class ClassifyReply(BaseModel):
    """What the classifier hears in a sound of so many seconds; `mel` is the second that counted."""

    probabilities: dict[str, float]
    label: str
    seconds: float
    mel: Picture


class Parameters(BaseModel):
    classifier: int
    subnet: int
    vocoder: int


class MelShape(BaseModel):
    """Pictures of the log-mel: bands from low_hz to high_hz, and frames in time."""

    rows: int
    columns: int
    low_hz: float
    high_hz: float


class Limits(BaseModel):
    n: int
    steps: int
    gamma: float
    upload_bytes: int
    upload_seconds: float


class ModelReply(BaseModel):
    """The model that speaks here, and what may be asked of it."""

    name: str
    labels: list[str]
    digest: str
    parameters: Parameters
    rate: int
    seconds: float
    mel: MelShape
    defaults: SettingsReply
    vocoders: list[VocoderChoice]
    samplers: list[Sampler]
    limits: Limits
    version: str


class Status(BaseModel):
    status: str


class Fault(BaseModel):
    code: str
    message: str


class Problem(BaseModel):
    """Every error: a code for programs and one line for people."""

    error: Fault
