"""Forms of a data set: where the clips of a shard lie, as files and their bytes. Pure: takes sounds and records, writes nothing.

`speech_commands`: <label>/<seed>_nohash_<target>.wav, the seed in hexadecimal in the place of the speaker, with validation_list.txt and
testing_list.txt; what is no word asked for lies in _unknown_. `openwakeword`: positive_train, positive_test, negative_train and
negative_test, as openWakeWord and its relatives read them: windows of 2 s at 16 kHz; the test has the seeds of both lists.
`webdataset`: a tar a shard, of each clip a WAV and a JSON file of one name.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from duovox.data.splits import which_split
from duovox.dataset.options import Layout
from duovox.dataset.plan import Item, Target
from duovox.dataset.records import Record
from duovox.files import safe_name


@dataclass(frozen=True)
class Sound:
    """A clip that is kept: its WAV file's bytes, and its record."""

    wav: bytes
    record: Record


UNKNOWN = "_unknown_"
WINDOW, WINDOW_RATE = 2.0, 16000
"""Seconds, and Hz, of a clip of openwakeword."""


def stem_of(item: Item) -> str:
    """The name of a clip as Speech Commands builds it; the seed stands for the speaker, the number tells clips of one folder apart."""
    return f"{item.seed:08x}_nohash_{item.target}"


def split_of(item: Item) -> str:
    """train, validation or test by the official rule of Speech Commands, so that a seed is in one split with all its words."""
    return which_split(stem_of(item))


def place_of(layout: Layout, target: Target, item: Item, shard: int) -> str:
    """Where a clip lies below the data set; the name in a tar comes after that of the tar."""
    if layout == "webdataset":
        return f"{tar_name(shard)}/{item.id:09d}.wav"
    return f"{folder_of(layout, target, split_of(item) == 'train')}/{stem_of(item)}.wav"


def folder_of(layout: Layout, target: Target, train: bool) -> str:
    """The folder that the clips of a target lie in."""
    if layout == "openwakeword":
        return f"{'positive' if target.positive else 'negative'}_{'train' if train else 'test'}"
    return safe_name(target.name) if target.positive else UNKNOWN


def tar_name(shard: int) -> str:
    return f"{shard:06d}.tar"


def folders(layout: Layout, targets: Sequence[Target]) -> list[str]:
    """The folders that the clips lie in."""
    if layout == "webdataset":
        return []
    if layout == "openwakeword":
        return [f"{side}_{split}" for side in ("positive", "negative") for split in ("train", "test")]
    return list(dict.fromkeys(folder_of(layout, target, True) for target in targets))


def files_of(layout: Layout, shard: int, sounds: Sequence[Sound], common: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of a shard by their names; none where no clip was kept. `common` is said of every clip in a tar."""
    if layout == "webdataset":
        return {tar_name(shard): tar_of(sounds, common)} if sounds else {}
    return {sound.record["file"]: sound.wav for sound in sounds}


def tar_of(sounds: Sequence[Sound], common: Mapping[str, Any]) -> bytes:
    """A tar of WebDataset: <id>.json and <id>.wav of each clip. The same sounds, the same bytes."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sound in sounds:
            name = PurePosixPath(sound.record["file"])
            story = json.dumps({**sound.record, **common}, ensure_ascii=False).encode()
            for member, data in ((name.with_suffix(".json").name, story), (name.name, sound.wav)):
                tar.addfile(_member(member, len(data)), io.BytesIO(data))
    return content.getvalue()


def _member(name: str, size: int) -> tarfile.TarInfo:
    """A header without time and owner; tarfile's own defaults for both are zeros, said here because bytes depend on it."""
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.uid, member.gid, member.uname, member.gname, member.mode = size, 0, 0, 0, "", "", 0o644
    return member
