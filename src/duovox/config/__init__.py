"""Every setting of duovox, as frozen dataclasses that check themselves; TOML and JSON in and out.

A setting stands here once and nowhere else. Nothing here imports torch, so that `duovox --help` stays fast.
"""

from duovox.config.diffusion import PRESETS, Calibration, NoiseConfig, PresetName, SampleConfig, SamplerName, ScheduleName
from duovox.config.external import ExternalConfig, MelInput, TapConfig, WaveInput, read_input
from duovox.config.fields import check_labels, check_languages, from_dict, to_dict, to_json
from duovox.config.guiding import (
    MAX_CANDIDATES,
    MAX_GUIDES,
    GuideConfig,
    GuideRecord,
    GuideStrength,
    between,
    check_target,
    listed,
    read_target,
    write_target,
)
from duovox.config.networks import EncoderConfig, SpeakerConfig, SubnetConfig, UNetConfig
from duovox.config.recipe import Recipe, read_recipe, write_recipe
from duovox.config.sound import MelConfig, MelScale, VocoderConfig
from duovox.config.student import Repertoire, Schooling, SolutionConfig, StudentConfig
from duovox.config.training import SeenConfig, TrainConfig, with_updates

__all__ = [
    "MAX_CANDIDATES",
    "MAX_GUIDES",
    "PRESETS",
    "Calibration",
    "EncoderConfig",
    "ExternalConfig",
    "GuideConfig",
    "GuideRecord",
    "GuideStrength",
    "MelConfig",
    "MelInput",
    "MelScale",
    "NoiseConfig",
    "PresetName",
    "Recipe",
    "Repertoire",
    "SampleConfig",
    "SamplerName",
    "ScheduleName",
    "Schooling",
    "SeenConfig",
    "SolutionConfig",
    "SpeakerConfig",
    "StudentConfig",
    "SubnetConfig",
    "TapConfig",
    "TrainConfig",
    "UNetConfig",
    "VocoderConfig",
    "WaveInput",
    "between",
    "check_labels",
    "check_languages",
    "check_target",
    "from_dict",
    "listed",
    "read_input",
    "read_recipe",
    "read_target",
    "to_dict",
    "to_json",
    "with_updates",
    "write_recipe",
    "write_target",
]
