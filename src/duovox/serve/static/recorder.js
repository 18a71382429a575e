// Records one second from the microphone. Takes blocks from `recorder-worklet`, gives a WAV file.

import { encodeWav } from "./wav.js";

const LEAD_IN = 0.6; // seconds in which the microphone wakes up and the person gets ready

const REFUSALS = {
  NotAllowedError: "The browser does not let this page use the microphone. Allow it beside the address, or choose a file.",
  NotFoundError: "No microphone was found. Plug one in, or choose a file.",
  NotReadableError: "Another program holds the microphone. Close it, or choose a file.",
};

/** Why this page cannot record at all, or null. */
export function microphoneProblem() {
  if (navigator.mediaDevices?.getUserMedia && globalThis.AudioWorkletNode) return null;
  return isSecureContext
    ? "This browser has no microphone for pages. Choose a file instead."
    : "Browsers give the microphone to pages on https or localhost only. Choose a file instead.";
}

async function openMicrophone() {
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch (error) {
    throw new Error(REFUSALS[error.name] ?? `The microphone cannot be used: ${error.message}`);
  }
}

const loudness = (block) => Math.sqrt(block.reduce((sum, sample) => sum + sample * sample, 0) / block.length);

function join(blocks, length) {
  const all = new Float32Array(blocks.reduce((sum, block) => sum + block.length, 0));
  let place = 0;
  for (const block of blocks) {
    all.set(block, place);
    place += block.length;
  }
  return all.subarray(0, length);
}

/** Gather `seconds` of sound after the lead-in; `onStart()` when it begins, `onLevel(0..1)` while it lasts. */
function gather(port, rate, seconds, signal, { onStart, onLevel }) {
  const lead = Math.round(LEAD_IN * rate);
  const wanted = Math.round(seconds * rate);
  const blocks = [];
  let heard = 0;
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    port.onmessage = ({ data }) => {
      heard += data.length;
      if (heard <= lead) return;
      if (blocks.length === 0) onStart();
      blocks.push(data);
      onLevel(Math.min(1, 4 * loudness(data)));
      if (heard - lead >= wanted + data.length) resolve(join(blocks, wanted));
    };
  });
}

/** One recording as a WAV Blob. Throws an Error in words for the person, or the signal's reason. */
export async function record(seconds, signal, hooks) {
  const stream = await openMicrophone();
  const context = new AudioContext();
  try {
    await context.audioWorklet.addModule(new URL("./recorder-worklet.js", import.meta.url));
    signal.throwIfAborted();
    const node = new AudioWorkletNode(context, "recorder");
    context.createMediaStreamSource(stream).connect(node).connect(context.destination); // it gives silence, but only so is it run
    return encodeWav([await gather(node.port, context.sampleRate, seconds, signal, hooks)], context.sampleRate);
  } finally {
    for (const track of stream.getTracks()) track.stop();
    context.close();
  }
}
