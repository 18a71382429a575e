// Sounds that the server does not read (m4a, webm, ...) -> WAV, by way of the browser's own decoders. Takes files from `listen`.

import { encodeWav } from "./wav.js";

const MOST_BYTES = 48 * 2 ** 20; // larger ones could fill the memory once they are decoded

export const megabytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MB`;

/** All channels of a file at `rate` Hz, as a WAV file of 16 bits; null where this browser cannot decode it, or it is too large to try.
 *  Throws an Error in words for sounds longer than `seconds`. */
export async function toWav(file, rate, seconds) {
  if (file.size > MOST_BYTES) return null;
  const decoder = new OfflineAudioContext(1, 1, rate); // it resamples what it decodes
  const sound = await decoder.decodeAudioData(await file.arrayBuffer()).catch(() => null);
  if (sound === null) return null;
  if (sound.duration > seconds) throw new Error(`${file.name} lasts ${sound.duration.toFixed(0)} s; the server takes ${seconds} s at most.`);
  const channels = Array.from({ length: sound.numberOfChannels }, (_, channel) => sound.getChannelData(channel));
  return new File([encodeWav(channels, rate)], "decoded.wav", { type: "audio/wav" });
}
