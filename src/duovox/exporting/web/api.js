// The page's model, in this browser: answers as the server's API does, from a worker of its own; nothing is sent anywhere. Stands in the
// place of the module of that name that asks a server.

import { encodeWav } from "./wav.js";

const MOST_FRAMES = 16;
const SIMD = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11);

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let model = null;
let worker = null;
let last = 0;
const waiting = new Map();

/** Ask the worker; `onFrame` is told of what it sends before its result. Throws an Error in words, or the signal's reason. */
function ask(message, signal, onFrame, transfer = []) {
  const id = ++last;
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject, onFrame });
    worker.postMessage({ id, ...message }, transfer);
    signal?.addEventListener("abort", () => {
      worker.postMessage({ id, kind: "cancel" });
      waiting.delete(id);
      reject(signal.reason);
    }, { once: true });
  });
}

function startWorker() {
  worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data: { id, frame, result, error } }) => {
    const waits = waiting.get(id);
    if (!waits) return;
    if (frame) {
      waits.onFrame?.(frame);
      return;
    }
    waiting.delete(id);
    if (error === undefined) waits.resolve(result);
    else waits.reject(new ApiError(400, error));
  };
  worker.onerror = (event) => {
    for (const { reject } of waiting.values()) reject(new ApiError(0, `The model cannot be run in this browser (${event.message ?? "its worker does not start"}).`));
    waiting.clear();
  };
}

/** Keep the page's files, so that it works without a network from now on. Where that cannot be, the page works as long as it is online. */
async function keepOffline() {
  if (!navigator.serviceWorker) return;
  await navigator.serviceWorker.register(new URL("../service-worker.js", import.meta.url)).catch(() => null);
  if (await navigator.serviceWorker.getRegistration()) await navigator.serviceWorker.ready;
}

/** What the page can speak: labels, defaults, limits. Loads the model. */
export async function fetchModel(onWait) {
  if (!globalThis.WebAssembly?.validate(SIMD)) {
    throw new ApiError(0, "This browser cannot run the model: it has no WebAssembly SIMD. A current Chrome, Firefox, Edge or Safari has.");
  }
  if (!globalThis.DecompressionStream) {
    throw new ApiError(0, "This browser cannot unpack the model (no DecompressionStream). A current Chrome, Firefox, Edge or Safari can.");
  }
  onWait?.("Loading the model", 0);
  await keepOffline();
  const response = await fetch(new URL("../model/model.json", import.meta.url)).catch(() => null);
  if (!response?.ok) throw new ApiError(0, "The model cannot be loaded. Is there a network?");
  model = await response.json();
  startWorker();
  const { threads } = await ask({ kind: "load" });
  document.documentElement.dataset.threads = threads;
  return model;
}

const toBase64 = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));

/** A log-mel in the range of `like`, eight bits a pixel. */
function picture(logMel, like) {
  const [low, high] = [like.reduce((a, b) => Math.min(a, b)), like.reduce((a, b) => Math.max(a, b))];
  const levels = Uint8Array.from(logMel, (value) => Math.round(255 * Math.min(1, Math.max(0, (value - low) / (high - low || 1)))));
  return { rows: model.mel.rows, columns: model.mel.columns, low, high, data: toBase64(levels) };
}

/** Some of the frames, evenly, the last of them the finished one. */
function chosen(frames, finished) {
  const last = frames.length - 1;
  const count = Math.min(frames.length, MOST_FRAMES);
  const some = Array.from({ length: count }, (_, i) => frames[count > 1 ? Math.round((i * last) / (count - 1)) : 0]);
  return some.map(({ sigma, logMel }, i) => ({ sigma, mel: picture(i === count - 1 ? finished : logMel, finished) }));
}

const quoted = (word) => (/^[\w.+-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);

/** The command and the Python that give the same clip from the bundle. */
function recipes({ label, seed, ...changes }) {
  const options = Object.entries(changes).map(([key, value]) => `--${key.replaceAll("_", "-")} ${value}`);
  const value = (given) => (given === "inf" ? 'float("inf")' : JSON.stringify(given));
  const given = [label === null ? "None" : JSON.stringify(label), `seed=${seed}`, ...Object.entries(changes).map(([key, one]) => `${key}=${value(one)}`)];
  return {
    command: ["duovox generate", quoted(label ?? "any"), `--seed ${seed}`, ...options, `--bundle ${quoted(model.name)}`].join(" "),
    python: `from duovox import Duovox\n\nclips = Duovox.from_pretrained(${JSON.stringify(model.name)}).generate(${given.join(", ")})\n`,
  };
}

/** Generate a clip, with pictures and frames. */
export async function generate(request, signal) {
  const frames = [];
  const { label, seed, preset, ...changes } = request;
  const settings = { ...model.presets[preset ?? model.defaults.preset], ...changes };
  const whole = { label, seed, ...settings };
  const { wave, logMel, probabilities } = await ask({ kind: "generate", request: whole }, signal, (frame) => frames.push(frame));
  const file = new Uint8Array(await encodeWav([wave], model.rate).arrayBuffer());
  const clip = {
    label, seed, rate: model.rate, seconds: wave.length / model.rate, media_type: "audio/wav", audio: toBase64(file), probabilities,
    mel: picture(logMel, logMel), frames: chosen(frames, logMel),
  };
  return { clips: [clip], clip, settings: { ...model.defaults, ...settings }, digest: model.digest, ...recipes(request) };
}

/** The page offers the clip itself alone, as it is at hand. */
export function generateFile(_request, format) {
  throw new ApiError(400, `This page gives WAV files, not ${format}.`);
}

/** What the classifier hears in a sound file, of any kind that this browser decodes. */
export async function classify(file, signal) {
  const decoder = new OfflineAudioContext(1, 1, model.rate); // it resamples what it decodes
  const sound = await decoder.decodeAudioData(await file.arrayBuffer()).catch(() => null);
  if (sound === null) throw new ApiError(415, "it is no sound that can be read");
  if (sound.duration > model.limits.upload_seconds) {
    throw new ApiError(400, `${file.name} lasts ${sound.duration.toFixed(0)} s; this page listens to ${model.limits.upload_seconds} s at most.`);
  }
  const channels = Array.from({ length: sound.numberOfChannels }, (_, i) => sound.getChannelData(i).slice());
  const { probabilities, heard, notes } = await ask({ kind: "classify", channels, rate: model.rate }, signal);
  const label = model.labels.reduce((best, name) => (probabilities[name] > probabilities[best] ? name : best));
  return { probabilities, label, seconds: sound.duration, mel: picture(heard, heard), notes };
}
