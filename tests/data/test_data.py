"""data/: sources, features, batches and fetch, on small folders of tones whose contents are known."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import socket
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from duovox.sound.audio import write_audio
from duovox.config import MelConfig
from duovox.contracts import DataError, OutputError
from duovox.data import (
    ARCHIVES,
    SC09,
    Archive,
    Batches,
    Source,
    fetch,
    fetch_archive,
    in_order,
    open_features,
    prepare,
    read_manifest,
    scan,
    which_split,
)
from duovox.data import features as features_module
from duovox.data.storage import ArrayWriter
from duovox.sound.mel import LogMel

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "speech_commands"
MEL = MelConfig()
RATE = MEL.sample_rate


def speakers(split: str, count: int, start: int = 0) -> list[str]:
    """Made-up speaker names that the official rule puts into `split`."""
    names = (f"{number:08x}" for number in range(start, 100000))
    return [name for name in names if which_split(f"{name}_nohash_0") == split][:count]


def tone(number: int, samples: int = RATE) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * (200 + 40 * number) * np.arange(samples) / RATE)).astype(np.float32)


def make_words(root: Path, labels: tuple[str, ...] = ("no", "yes"), train: int = 5, held: int = 2, suffix: str = ".wav") -> Path:
    """A folder of words: per label `train` clips of train speakers, `held` each of validation and test speakers."""
    stems = [f"{s}_nohash_0" for s in [*speakers("train", train), *speakers("validation", held), *speakers("test", held)]]
    for number, label in enumerate(labels):
        for index, stem in enumerate(stems):
            write_audio(root / label / f"{stem}{suffix}", tone(10 * number + index, RATE - 1000 * index), RATE, parents=True)
    return root


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_words(tmp_path_factory.mktemp("data") / "words")


@pytest.fixture(scope="module")
def folder(words: Path) -> Path:
    prepare(words, words.parent / "features", progress=False)
    return words.parent / "features"


# sources: labels, splits, speakers


@pytest.mark.parametrize(
    ("stem", "split"),
    [
        ("026290a7_nohash_0", "validation"),  # in v0.01's validation_list.txt
        ("0c40e715_nohash_0", "test"),  # in v0.01's testing_list.txt
    ],
)
def test_official_rule_on_listed_clips(stem: str, split: str) -> None:
    assert which_split(stem) == split
    assert which_split(stem.replace("_0", "_7")) == split


def test_official_rule_is_the_published_formula() -> None:
    """100 * (sha1(speaker) mod 2^27) / (2^27 - 1): below 10 validation, below 20 test."""
    for stem, speaker in [("anna", "anna"), ("bob_nohash_3", "bob"), ("c_nohash_1_nohash_2", "c")]:
        percent = 100 * (int(hashlib.sha1(speaker.encode()).hexdigest(), 16) % 2**27) / (2**27 - 1)
        assert which_split(stem) == ("validation" if percent < 10 else "test" if percent < 20 else "train")


def test_official_rule_gives_the_official_lists() -> None:
    if not REAL.is_dir():
        pytest.skip("real recordings (../shared/data/speech_commands) are absent")
    for name, split in [("validation_list.txt", "validation"), ("testing_list.txt", "test")]:
        lines = (REAL / name).read_text().split()
        assert len(lines) > 1000
        assert {which_split(Path(line).stem) for line in lines} == {split}


def test_scan_finds_labels_in_order_and_ignores_the_rest(tmp_path: Path) -> None:
    make_words(tmp_path, ("two", "yes", "one"), train=2, held=0)
    for extra in ("_background_noise_/hum.wav", ".git/a.wav", "one/notes.txt", "one/.hidden.wav"):
        (tmp_path / extra).parent.mkdir(exist_ok=True)
        (tmp_path / extra).write_bytes(b"")
    found = scan(tmp_path)
    assert found.labels == ("one", "two", "yes")
    assert len(found.sources) == 6
    assert list(found.skipped) == ["one/notes.txt"] and ".txt" in found.skipped["one/notes.txt"]
    assert scan(tmp_path, "yes, one").labels == ("yes", "one")
    assert scan(tmp_path, ["two", "one"]).labels == ("two", "one")


def test_sc09_by_name(tmp_path: Path) -> None:
    make_words(tmp_path, (*SC09, "bird"), train=2, held=0)
    assert scan(tmp_path, "sc09").labels == SC09
    shutil.rmtree(tmp_path / "seven")
    with pytest.raises(DataError, match="no folder for the labels seven; there are zero, one"):
        scan(tmp_path, "sc09")


def test_lists_match_by_label_and_stem_whatever_the_suffix(tmp_path: Path) -> None:
    make_words(tmp_path, train=3, held=0, suffix=".flac")
    stems = [p.stem for p in sorted((tmp_path / "no").iterdir())]
    (tmp_path / "validation_list.txt").write_text(f"no/{stems[0]}.wav\nyes/{stems[0]}.wav\n\nelsewhere/{stems[1]}.wav\n")
    (tmp_path / "testing_list.txt").write_text(f"no/{stems[1]}.wav\r\nyes/{stems[1]}.wav\r\n")
    splits = {(s.label, s.path.stem): s.split for s in scan(tmp_path).sources}
    for label in ("no", "yes"):
        assert [splits[label, stem] for stem in stems] == ["validation", "test", "train"]


def test_speaker_in_two_splits_is_named(tmp_path: Path) -> None:
    make_words(tmp_path, train=3, held=0)
    stem = sorted((tmp_path / "no").iterdir())[0].stem
    (tmp_path / "validation_list.txt").write_text(f"no/{stem}.wav\n")
    (tmp_path / "testing_list.txt").write_text("")
    with pytest.raises(DataError, match=f"speaker '{stem.split('_')[0]}' is in two splits: .* in validation, .* in train"):
        scan(tmp_path)


def test_lists_that_do_not_fit(tmp_path: Path) -> None:
    make_words(tmp_path, train=3, held=0)
    (tmp_path / "validation_list.txt").write_text("no/who.wav\n")
    with pytest.raises(DataError, match="not both"):
        scan(tmp_path)
    (tmp_path / "testing_list.txt").write_text("yes/else.wav\n")
    with pytest.raises(DataError, match="none of the 2 clips"):
        scan(tmp_path)
    (tmp_path / "testing_list.txt").write_text("no/who.flac\n")
    with pytest.raises(DataError, match="stands in both"):
        scan(tmp_path)
    (tmp_path / "testing_list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot read"):
        scan(tmp_path)


def test_refuses_too_little(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        scan(tmp_path / "absent")
    with pytest.raises(DataError, match="at least 2 different labels are needed, got none"):
        scan(tmp_path)
    make_words(tmp_path, ("no",), train=3, held=0)
    with pytest.raises(DataError, match="got no"):
        scan(tmp_path)
    (tmp_path / "yes").mkdir()
    write_audio(tmp_path / "yes" / "a.wav", tone(0), RATE)
    with pytest.raises(DataError, match="label 'yes' has 1 usable clips"):
        scan(tmp_path)
    with pytest.raises(DataError, match="different labels"):
        scan(tmp_path, "no,no")


# features: what is stored


def test_prepared_features_are_the_clips(words: Path, folder: Path) -> None:
    features = open_features(folder, MEL)
    assert features.labels == ("no", "yes") and len(features.stems) == 18
    assert features.waves.shape == (18, MEL.clip_samples) and features.waves.dtype == np.int16
    assert features.log_mels.shape == (18, MEL.n_mels, MEL.frames) and features.log_mels.dtype == np.float16
    for index, stem in enumerate(features.stems):
        position = sorted(p.stem for p in (words / features.labels[features.label[index]]).iterdir()).index(stem)
        assert features.speakers[index] == stem.split("_")[0] and features.split[index] == which_split(stem)
        assert position == index % 9
        lasts = np.flatnonzero(features.waves[index])[-1] + 1
        assert lasts % 1000 in (0, 999)
    wave = torch.from_numpy(features.waves[:].astype(np.float32) / 2**15)
    np.testing.assert_allclose(features.log_mels, LogMel(MEL)(wave)[:, 0], atol=0.005)


def test_manifest_counts_and_statistics(folder: Path) -> None:
    manifest, features = read_manifest(folder), open_features(folder)
    assert manifest.counts == {label: {"train": 5, "validation": 2, "test": 2} for label in ("no", "yes")}
    assert manifest.skipped == {} and manifest.mel == MEL
    train = features.log_mels[features.indices("train")].astype(np.float64)
    got = features.statistics
    np.testing.assert_allclose([got.low, got.high, got.mean, got.std], [train.min(), train.max(), train.mean(), train.std()], rtol=1e-9)


def test_indices_part_the_clips(folder: Path) -> None:
    features = open_features(folder)
    parts = [features.indices(split) for split in ("train", "validation", "test")]
    assert sorted(np.concatenate(parts)) == list(range(18))
    with pytest.raises(DataError, match="no split named 'testing'; there are train, validation, test"):
        features.indices("testing")


def test_second_run_is_up_to_date(words: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(features_module, "_decode", lambda *_: pytest.fail("decoded again"))
    assert prepare(words, folder) == read_manifest(folder)
    assert "up to date" in capsys.readouterr().err


def test_result_does_not_depend_on_workers_or_place(words: Path, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(words, tmp_path / "copy")
    manifest = prepare(tmp_path / "copy", tmp_path / "features", progress=False, workers=1)
    assert manifest.digest == read_manifest(folder).digest
    assert (tmp_path / "features" / "waves.npy").read_bytes() == (folder / "waves.npy").read_bytes()


def test_changed_settings_are_never_read_stale(words: Path, tmp_path: Path) -> None:
    out = tmp_path / "features"
    first = prepare(words, out, progress=False)
    other = replace(MEL, fmin=50.0, n_mels=64)
    with pytest.raises(DataError, match=r"n_mels 64 wanted, 80 stored, fmin 50\.0 wanted, 0\.0 stored"):
        open_features(out, other)
    second = prepare(words, out, other, progress=False)
    assert second.digest != first.digest and open_features(out, other).log_mels.shape[1] == 64
    assert prepare(words, out, other, labels="yes,no", progress=False).labels == ("yes", "no")
    assert names(tmp_path) == ["features"]


def test_changed_files_are_never_read_stale(tmp_path: Path) -> None:
    words, out = make_words(tmp_path / "words"), tmp_path / "features"
    first = prepare(words, out, progress=False)
    clip = sorted((words / "no").iterdir())[0]
    before = clip.stat()
    write_audio(clip, tone(50), RATE, force=True)
    os.utime(clip, ns=(before.st_atime_ns, before.st_mtime_ns + 1000))
    second = prepare(words, out, progress=False)
    assert second.inputs != first.inputs and second.digest != first.digest
    clip.unlink()
    assert sum(prepare(words, out, progress=False).counts["no"].values()) == 8


def test_force_builds_again(words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(words, tmp_path / "features", progress=False)
    calls: list[Source] = []
    real = features_module._decode

    def counted(source: Source, mel: MelConfig) -> object:
        calls.append(source)
        return real(source, mel)

    monkeypatch.setattr(features_module, "_decode", counted)
    prepare(words, tmp_path / "features", progress=False, force=True)
    assert len(calls) == 18


# features: bad input


def test_unusable_clips_among_good_ones_are_left_out_with_reasons(tmp_path: Path) -> None:
    words = make_words(tmp_path / "words")
    (words / "no" / "aaa.wav").write_text("this is a letter\n" * 100)
    (words / "no" / "bbb.ogg").write_bytes(b"")
    (words / "yes" / "ccc.m4a").write_bytes(b"1234")
    write_audio(words / "yes" / "ddd.wav", np.zeros(600 * 8000, np.float32), 8000)
    manifest = prepare(words, tmp_path / "features", progress=False)
    assert sorted(manifest.skipped) == ["no/aaa.wav", "no/bbb.ogg", "yes/ccc.m4a", "yes/ddd.wav"]
    for name, reason in [("no/aaa.wav", "not sound"), ("no/bbb.ogg", "is empty"), ("yes/ccc.m4a", "m4a"), ("yes/ddd.wav", "lasts 600 s")]:
        assert reason in manifest.skipped[name] and str(tmp_path) not in manifest.skipped[name]
    features = open_features(tmp_path / "features")
    assert len(features.stems) == 18 == len(features.log_mels) and np.load(tmp_path / "features" / "waves.npy").shape == (18, 16000)


def test_no_usable_audio(tmp_path: Path) -> None:
    for name in ("no/a.wav", "no/b.wav", "yes/a.wav", "yes/b.wav"):
        (tmp_path / "words" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "words" / name).write_text("words")
    with pytest.raises(DataError, match=r"no usable audio: all 4 files failed, the first, no/a\.wav: is not sound"):
        prepare(tmp_path / "words", tmp_path / "features", progress=False)
    assert names(tmp_path) == ["words"]


def test_label_left_with_one_clip_or_none_to_train_on(tmp_path: Path) -> None:
    words = make_words(tmp_path / "words", train=2, held=0)
    broken = sorted((words / "yes").iterdir())[0]
    broken.write_text("words")
    with pytest.raises(DataError, match="label 'yes' has 1 usable clips"):
        prepare(words, tmp_path / "features", progress=False)
    for number, speaker in enumerate(speakers("test", 2)):
        write_audio(words / "up" / f"{speaker}_nohash_0.wav", tone(number), RATE, parents=True)
    with pytest.raises(DataError, match="no clip of label 'up' falls into the train split"):
        prepare(words, tmp_path / "features", labels="no,up", progress=False)
    assert names(tmp_path) == ["words"]


def test_interrupted_run_leaves_nothing_and_keeps_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words, out = make_words(tmp_path / "words"), tmp_path / "features"
    append = ArrayWriter.append

    def interrupted(self: ArrayWriter, rows: np.ndarray) -> None:
        append(self, rows)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ArrayWriter, "append", interrupted)
        prepare(words, out, progress=False)
    assert names(tmp_path) == ["words"]
    first = prepare(words, out, progress=False)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ArrayWriter, "append", interrupted)
        prepare(words, out, progress=False, force=True)
    assert names(tmp_path) == ["features", "words"] and read_manifest(out) == first


def test_remains_of_a_killed_run_are_removed(words: Path, tmp_path: Path) -> None:
    for name in (".features.999999999.partial", ".features.999999999.old", ".features.mine"):
        (tmp_path / name).mkdir()
    prepare(words, tmp_path / "features", progress=False)
    assert names(tmp_path) == [".features.mine", "features"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_full_disk_or_read_only_folder(words: Path, tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(ArrayWriter, "append", full)
    with pytest.raises(OutputError, match=os.strerror(code)):
        prepare(words, tmp_path / "features", progress=False)
    assert names(tmp_path) == []


def test_nothing_of_the_users_is_replaced(words: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("thesis", "file"):
        with pytest.raises(OutputError, match="no feature folder"):
            prepare(words, tmp_path / name, progress=False, force=True)
    for place in (words, words / "features"):
        with pytest.raises(OutputError, match="must not lie inside"):
            prepare(words, place, progress=False)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert prepare(words, tmp_path / "empty", progress=False).counts


def test_damaged_feature_folders(folder: Path, words: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no feature folder"):
        open_features(tmp_path)
    broken = tmp_path / "features"
    shutil.copytree(folder, broken)
    (broken / "waves.npy").write_bytes((folder / "waves.npy").read_bytes()[:5000])
    with pytest.raises(DataError, match=r"waves\.npy is missing or damaged"):
        open_features(broken)
    np.save(broken / "waves.npy", np.zeros((3, 4), np.int16))
    with pytest.raises(DataError, match=r"int16 \(3, 4\), its manifest says int16 \(18, 16000\)"):
        open_features(broken)
    manifest = json.loads((broken / "manifest.json").read_text())
    for damage, message in [('{"format": 1', "cannot be read"), (json.dumps(manifest | {"format": 9}), "format 9"), ("[]", "format None")]:
        (broken / "manifest.json").write_text(damage)
        with pytest.raises(DataError, match=message):
            open_features(broken)
    assert prepare(words, broken, progress=False).digest == read_manifest(folder).digest


# batches


def test_batches_are_a_pure_function_of_seed_and_step(folder: Path) -> None:
    features = open_features(folder)
    batches = Batches(features, "train", 4, seed=1)
    later = batches.at(7)
    batches.at(0)
    again = Batches(open_features(folder), "train", 4, seed=1).at(7)
    assert later.log_mel.shape == (4, 1, MEL.n_mels, MEL.frames) and later.log_mel.dtype == torch.float32
    assert later.wave.shape == (4, MEL.clip_samples) and later.wave.dtype == torch.float32 and later.label.dtype == torch.int64
    for name in ("log_mel", "wave", "label"):
        assert torch.equal(getattr(later, name), getattr(again, name))
    assert not np.array_equal(Batches(features, "train", 10, seed=2).indices_at(0), Batches(features, "train", 10, seed=1).indices_at(0))


@pytest.mark.parametrize("batch", [1, 3, 10, 25])
def test_every_epoch_shows_every_clip_once(folder: Path, batch: int) -> None:
    """Batches run on from one epoch into the next, also where one is larger than the split."""
    batches = Batches(open_features(folder), "train", batch, seed=0)
    stream = np.concatenate([batches.indices_at(step) for step in range(-(-30 // batch))])
    wanted = sorted(open_features(folder).indices("train"))
    for epoch in range(3):
        assert sorted(stream[10 * epoch : 10 * epoch + 10]) == wanted
    assert list(stream[:10]) != list(stream[10:20])


def test_in_order_is_one_pass(folder: Path) -> None:
    features = open_features(folder)
    batches = list(in_order(features, "train", 4))
    assert [len(b.label) for b in batches] == [4, 4, 2]
    assert torch.cat([b.label for b in batches]).tolist() == features.label[features.indices("train")].tolist()
    np.testing.assert_array_equal(batches[0].wave[0] * 2**15, features.waves[features.indices("train")[0]])


def test_batches_refuse_an_empty_split_or_batch(tmp_path: Path, folder: Path) -> None:
    prepare(make_words(tmp_path / "words", train=3, held=0), tmp_path / "features", progress=False)
    features = open_features(tmp_path / "features")
    with pytest.raises(DataError, match="the validation split has no clips"):
        Batches(features, "validation", 4, seed=0)
    with pytest.raises(DataError, match="the test split has no clips"):
        list(in_order(features, "test", 4))
    with pytest.raises(DataError, match="batch size"):
        Batches(open_features(folder), "train", 0, seed=0)


# fetch, from a server on this machine


class Server(ThreadingHTTPServer):
    """Serves `content` at every address, with or without ranges, breaking off after `limit` bytes of an answer."""

    content = b""
    ranges = True
    limit: int | None = None
    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/words.tar.gz"


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
        body = self.server.content[start:]
        self.send_response(self.server.status if self.server.status != 200 else 416 if start and not body else 206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.limit])

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server(words: Path) -> Iterator[Server]:
    server = Server()
    server.content = tar_of(words)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def tar_of(folder: Path, extra: dict[str, bytes] | None = None) -> bytes:
    """The folder as the official archives pack theirs: `./label/stem.wav`."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(folder, arcname=".")
        for name, content in ({"./validation_list.txt": b"", "./_background_noise_/hum.wav": b"hum"} | (extra or {})).items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def archive_of(server: Server, labels: tuple[str, ...] = ()) -> Archive:
    return Archive(server.url, hashlib.sha256(server.content).hexdigest(), labels)


def test_fetch_unpacks_what_prepare_takes(server: Server, words: Path, tmp_path: Path) -> None:
    out = fetch_archive(archive_of(server), tmp_path / "new" / "words", progress=False)
    assert names(out) == [".duovox-archive", "_background_noise_", "no", "validation_list.txt", "yes"]
    assert names(out / "no") == names(words / "no") and names(out.parent) == ["words"]
    (out / "validation_list.txt").unlink()
    assert scan(out).labels == ("no", "yes")
    fetch_archive(archive_of(server), out, progress=False)
    assert len(server.asked) == 1


def test_fetch_unpacks_only_the_labels_asked_for(server: Server, tmp_path: Path) -> None:
    out = fetch_archive(archive_of(server, ("yes",)), tmp_path / "words", progress=False)
    assert names(out) == [".duovox-archive", "validation_list.txt", "yes"]


@pytest.mark.parametrize("ranges", [True, False])
def test_fetch_goes_on_where_it_stopped(server: Server, tmp_path: Path, ranges: bool) -> None:
    """A server that knows no ranges sends all of it again."""
    server.limit, out = 1000, tmp_path / "words"
    with pytest.raises(DataError, match=f"ended after 1000 of {len(server.content)} bytes.*run the same command again"):
        fetch_archive(archive_of(server), out, progress=False)
    assert names(tmp_path) == ["words.tar.gz.part"] and (tmp_path / "words.tar.gz.part").stat().st_size == 1000
    server.limit, server.ranges = None, ranges
    fetch_archive(archive_of(server), out, progress=False)
    assert server.asked == [None, "bytes=1000-"] and names(tmp_path) == ["words"]


def test_fetch_uses_a_download_that_is_whole(server: Server, tmp_path: Path) -> None:
    (tmp_path / "words.tar.gz.part").write_bytes(server.content)
    out = fetch_archive(archive_of(server), tmp_path / "words", progress=False)
    assert (out / "yes").is_dir()


def test_fetch_refuses_another_digest(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"not {'0' * 64}; it was removed"):
        fetch_archive(Archive(server.url, "0" * 64), tmp_path / "words", progress=False)
    assert names(tmp_path) == []


def test_fetch_refuses_an_archive_that_climbs_out(server: Server, words: Path, tmp_path: Path) -> None:
    server.content = tar_of(words, {"../../outside.wav": b"boo"})
    with pytest.raises(DataError, match="cannot be unpacked"):
        fetch_archive(archive_of(server), tmp_path / "deep" / "words", progress=False)
    assert names(tmp_path) == ["deep"] and names(tmp_path / "deep") == ["words.tar.gz.part"]


def test_fetch_refuses_what_is_no_archive(server: Server, tmp_path: Path) -> None:
    server.content = b"<html>please log in</html>"
    with pytest.raises(DataError, match="cannot be unpacked"):
        fetch_archive(archive_of(server), tmp_path / "words", progress=False)
    assert not (tmp_path / "words").exists()


def test_fetch_offline_or_refused(server: Server, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/words.tar.gz"
    out = tmp_path / "words"
    with pytest.raises(DataError, match="the network could not be reached") as caught:
        fetch_archive(Archive(url, "0" * 64), out, progress=False)
    for part in (url, "download it by hand", f"duovox data prepare {out}"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    server.status = 404
    with pytest.raises(DataError, match="answered 404 Not Found"):
        fetch_archive(archive_of(server), out, progress=False)
    assert names(tmp_path) == []


def test_fetch_keeps_what_is_there(server: Server, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds something else"):
        fetch_archive(archive_of(server), tmp_path, progress=False)
    assert server.asked == [] and names(tmp_path) == ["thesis.txt"]


def test_fetch_knows_its_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data set named 'sc10'; there are sc09, speech_commands_v0\.01, speech_commands_v0\.02"):
        fetch("sc10", tmp_path / "words")
    assert ARCHIVES["sc09"].labels == SC09
    assert all(len(archive.sha256) == 64 for archive in ARCHIVES.values())


# real recordings


def test_real_recordings(tmp_path: Path) -> None:
    if not REAL.is_dir():
        pytest.skip("real recordings (../shared/data/speech_commands) are absent")
    for label in ("one", "three"):
        (tmp_path / "words" / label).mkdir(parents=True)
        for path in sorted((REAL / label).iterdir())[:20]:
            shutil.copy(path, tmp_path / "words" / label)
    manifest = prepare(tmp_path / "words", tmp_path / "features", progress=False)
    features = open_features(tmp_path / "features", MEL)
    assert manifest.skipped == {} and len(features.stems) == 40
    assert -12 < features.statistics.mean < -3 and 1 < features.statistics.std < 4
    assert np.median(np.abs(features.waves[:].astype(int)).max(axis=1)) > 1000
