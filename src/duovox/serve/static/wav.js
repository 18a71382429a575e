// Samples -> a WAV file of 16 bits.

const HEADER = 44;

/** Channels (each a Float32Array in [-1, 1], all of one length) at `rate` Hz -> Blob. */
export function encodeWav(channels, rate) {
  const frame = 2 * channels.length; // bytes
  const size = frame * channels[0].length;
  const view = new DataView(new ArrayBuffer(HEADER + size));
  const text = (place, letters) => [...letters].forEach((letter, i) => view.setUint8(place + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, HEADER - 8 + size, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); // bytes of the format that follows
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, channels.length, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, frame * rate, true); // bytes a second
  view.setUint16(32, frame, true);
  view.setUint16(34, 16, true); // bits a sample
  text(36, "data");
  view.setUint32(40, size, true);
  const write = (sample, place) => view.setInt16(place, 32767 * Math.max(-1, Math.min(1, sample)), true);
  channels.forEach((samples, channel) => samples.forEach((sample, i) => write(sample, HEADER + frame * i + 2 * channel)));
  return new Blob([view], { type: "audio/wav" });
}
