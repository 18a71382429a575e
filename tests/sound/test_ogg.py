"""ogg.py: streams whose serial number is fixed and whose checksums are libsndfile's."""

from __future__ import annotations

import io

import numpy as np
import soundfile

from duovox.sound.ogg import checksum, with_fixed_serial


def test_serial_is_fixed_and_the_checksum_is_libsndfiles() -> None:
    """libsndfile draws the serial number at random and writes the checksum that ours must equal."""
    file = io.BytesIO()
    soundfile.write(file, 0.5 * np.sin(np.arange(16000) / 5), 16000, format="OGG")
    ogg = file.getvalue()
    end = 27 + ogg[26] + sum(ogg[27 : 27 + ogg[26]])
    page = ogg[:22] + bytes(4) + ogg[26:end]
    assert checksum(page) == int.from_bytes(ogg[22:26], "little")
    fixed = with_fixed_serial(ogg)
    assert fixed[14:18] == bytes(4) and len(fixed) == len(ogg)
