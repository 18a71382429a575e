"""What goes over the wire, both ways; FastAPI checks requests against it and draws /openapi.json from it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from duovox.config import MAX_CANDIDATES, MAX_GUIDES
from duovox.contracts import GuideWay
from duovox.serve.sampling import SampleReply, SampleRequest, Scalar, Setting
from duovox.serve.settings import MAX_CLIPS, MOST_GUIDED

Format = Literal["wav", "flac", "ogg"]
VocoderChoice = Literal["neural", "griffin_lim"]

Sigma = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


class WordsRequest(BaseModel):
    """Which words, and with which seeds."""

    label: Annotated[str, Field(max_length=100)] | None = Field(None, description="The word, or its figure (7); null for whatever comes.")
    n: int = Field(1, strict=True, ge=1, le=MAX_CLIPS, description="How many clips; their seeds are seed, seed + 1, ...")
    seed: int = Field(0, strict=True, ge=0, le=2**63 - MAX_CLIPS, description="The same seed and settings give the same clip.")


Label = Annotated[str, Field(max_length=100)]
Weight = Annotated[float, Field(strict=True, ge=-10, le=10, allow_inf_nan=False)]


class GuideRequest(BaseModel):
    """A guide that steers the clip further, one of those that /v1/model lists."""

    model_config = ConfigDict(extra="forbid")

    name: Label = Field(description="What the guide is called.")
    target: Label | dict[Label, Weight] = Field(
        description="What is wanted: a label of the guide, or labels with weights; below 0 keeps away from a label."
    )
    gamma: float | None = Field(
        None, strict=True, ge=0, le=MOST_GUIDED, allow_inf_nan=False, description="How strongly it guides; null for the guide's own."
    )
    way: GuideWay | None = Field(
        None, description="How its gradient comes back from the estimate: through the denoiser, or straight, cheaper; null for its own."
    )
    candidates: int | None = Field(
        None, strict=True, ge=1, le=MAX_CANDIDATES, description="Among so many noises it chooses the one to begin with; null for its own."
    )


class GuideReply(BaseModel):
    """A guide that a clip was steered by; `digest` is the identity of its network."""

    name: str
    target: dict[str, float]
    gamma: float
    way: GuideWay
    candidates: int
    digest: str


class GuideOffer(BaseModel):
    """A guide that may be asked for: what can be wanted of it, how strongly it guides unless told otherwise, and the ways its gradient may
    come back, its own first."""

    name: str
    labels: list[str]
    gamma: float
    ways: list[GuideWay]
    digest: str


class GenerateRequest(SampleRequest, WordsRequest):  # type: ignore[misc]  # its fields are those of SampleConfig
    """Words to speak. What is left out is the bundle's own."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"label": "three", "seed": 7}]})

    interval: tuple[Sigma, Sigma | None] | None = Field(
        None, description="In the place of guidance_low and guidance_high: both at once; null for no upper end."
    )
    guides: list[GuideRequest] = Field([], max_length=MAX_GUIDES, description="Guides beside the label; each costs time.")
    vocoder: VocoderChoice | None = Field(None, description="How the mel becomes sound.")
    format: Format = Field("wav", description="Format of the sound in a JSON answer.")
    mel: bool = Field(False, strict=True, description="Also give each clip's log-mel as a picture.")
    frames: bool = Field(False, strict=True, description="Also give the guesses on the way from noise to the clip.")
    keep_faulty: bool = Field(False, strict=True, description="Give clips that ran off to noise or silence as well.")


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
    """One clip; `audio` is a whole sound file in base64, `probabilities` what the classifier hears in it, `fault` why it is no speech
    (with keep_faulty; empty for one that may be)."""

    label: str | None
    seed: int
    rate: int
    seconds: float
    media_type: Literal["audio/wav", "audio/flac", "audio/ogg"]
    audio: str
    probabilities: dict[str, float]
    fault: str
    mel: Picture | None
    frames: list[FrameReply] | None


class SettingsReply(SampleReply):  # type: ignore[misc]  # its fields are those of SampleConfig
    """Settings a clip was, or would be, made with. `interval` repeats guidance_low and guidance_high, null for no upper end."""

    interval: tuple[float, float | None]
    vocoder: VocoderChoice


class GenerateReply(BaseModel):
    """Clips, the settings they share, and how to make them without this server."""

    clips: list[ClipReply]
    settings: SettingsReply
    guides: list[GuideReply]
    digest: str
    command: str
    python: str


class ClassifyReply(BaseModel):
    """What the classifier hears in a sound of so many seconds; `mel` is the part that counted, `notes` say what was cut or left out."""

    probabilities: dict[str, float]
    label: str
    seconds: float
    mel: Picture
    notes: list[str]


class Parameters(BaseModel):
    classifier: int
    subnet: int
    vocoder: int
    student: int


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
    guides: int
    guide_gamma: float
    upload_bytes: int
    upload_seconds: float


class ModelReply(BaseModel):
    """The model that speaks here, and what may be asked of it. With fewer than `fewest_steps` a sampler gives noise, which is refused.
    `languages` has the code of the language of each label that has one, `presets` the settings that each preset begins with, `guides`
    what may steer beside a label."""

    name: str
    labels: list[str]
    languages: dict[str, str]
    digest: str
    parameters: Parameters
    rate: int
    seconds: float
    mel: MelShape
    defaults: SettingsReply
    settings: list[Setting]
    presets: dict[str, dict[str, Scalar]]
    fewest_steps: dict[str, int]
    vocoders: list[VocoderChoice]
    samplers: list[str]
    guides: list[GuideOffer]
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
