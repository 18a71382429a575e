"""Sound files for those who use the library: `from duovox.audio import read_audio, write_audio`."""

from duovox.sound.audio import read_audio, write_audio

__all__ = ["read_audio", "write_audio"]
