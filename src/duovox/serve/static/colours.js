// The colours of spectrograms: level 0..255 -> red, green, blue.
// Twelve anchors at equal steps of lightness in OKLab (0.13 to 0.965), the hue turning from blue over red to cream; between
// neighbours a straight line. One step of level is one step to the eye, within a tenth.

const ANCHORS = [
  "040126", "1b0047", "3b0061", "610170", "8b0175", "b3146e", "d53560", "ee5b51", "fb844e", "fead66", "fbd497", "fbf4d7",
].map((hex) => [0, 2, 4].map((start) => parseInt(hex.slice(start, start + 2), 16)));

function colourAt(part) {
  const position = part * (ANCHORS.length - 1);
  const below = Math.min(Math.floor(position), ANCHORS.length - 2);
  return ANCHORS[below].map((value, i) => value + (ANCHORS[below + 1][i] - value) * (position - below));
}

/** 256 colours, three bytes each. */
export const COLOURS = new Uint8ClampedArray(Array.from({ length: 256 }, (_, level) => colourAt(level / 255)).flat());
