"""Recorded words as cached features: takes a folder of words, gives batches of log-mels, waves and labels to training."""

from duovox.data.batches import Batch, Batches, gather, in_order
from duovox.data.decoding import prepare
from duovox.data.features import Features, Manifest, Statistics, narrowed, open_features, read_manifest, relabelled, restricted
from duovox.data.fetch import ARCHIVES, Archive, fetch, fetch_archive
from duovox.data.labels import LABEL_SETS, SC09
from duovox.data.noisy import add_background
from duovox.data.sources import Scan, Source, SpeakerOptions, scan
from duovox.data.speakers import speaker_of
from duovox.data.splits import SPLITS, Held, which_split

__all__ = [
    "ARCHIVES",
    "LABEL_SETS",
    "SC09",
    "SPLITS",
    "Archive",
    "Batch",
    "Batches",
    "Features",
    "Held",
    "Manifest",
    "Scan",
    "Source",
    "SpeakerOptions",
    "Statistics",
    "add_background",
    "fetch",
    "fetch_archive",
    "gather",
    "in_order",
    "narrowed",
    "open_features",
    "prepare",
    "read_manifest",
    "relabelled",
    "restricted",
    "scan",
    "speaker_of",
    "which_split",
]
