// The server's API. Takes requests from the sections of the page, gives replies; a refusal becomes an `ApiError` in the server's words.
// Waits where the server says Retry-After, and asks for a token where it wants one.

import { askForToken } from "./token.js";

const PATIENCE = 60; // seconds of waiting in all before a busy server's refusal is shown
const LONGEST_WAIT = 20;

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let token = null; // in memory only

async function send(path, options, signal) {
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  try {
    return await fetch(path, { ...options, headers, signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, "The server does not answer. Is `duovox serve` still running?");
  }
}

async function refusal(response) {
  const reply = await response.json().catch(() => null);
  return new ApiError(response.status, reply?.error?.message ?? `The server answered ${response.status} ${response.statusText}.`);
}

function retryAfter(response) {
  const seconds = Number(response.headers.get("Retry-After"));
  const may = (response.status === 429 || response.status === 503) && seconds > 0;
  return may ? Math.min(seconds, LONGEST_WAIT) : null;
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}

/** Send a request until it is answered or refused. `onWait(message, seconds)` is told of every wait. */
async function call(path, options, signal, onWait) {
  for (let waited = 0; ; ) {
    const response = await send(path, options, signal);
    if (response.ok) return response;
    const seconds = retryAfter(response);
    const error = await refusal(response);
    if (response.status === 401) {
      token = await askForToken(error.message, signal);
      if (token === null) throw error;
    } else if (seconds !== null && waited + seconds <= PATIENCE) {
      onWait?.(error.message, seconds);
      await pause(seconds, signal);
      waited += seconds;
    } else {
      throw error;
    }
  }
}

const posted = (body, accept) => ({
  method: "POST",
  headers: { "Content-Type": "application/json", Accept: accept },
  body: JSON.stringify(body),
});

/** What the server serves: labels, defaults, limits. */
export async function fetchModel(onWait) {
  return (await call("/v1/model", {}, undefined, onWait)).json();
}

/** Generate with pictures and frames; gives the reply with its one clip as `clip`. */
export async function generate(request, signal, onWait) {
  const body = { ...request, mel: true, frames: true };
  const reply = await (await call("/v1/generate", posted(body, "application/json"), signal, onWait)).json();
  return { ...reply, clip: reply.clips[0] };
}

/** The clip of a request as a sound file of the format wav, flac or ogg. */
export async function generateFile(request, format, signal, onWait) {
  return (await call("/v1/generate", posted({ ...request, format }, `audio/${format}`), signal, onWait)).blob();
}

/** What the classifier hears in a sound file. */
export async function classify(file, signal, onWait) {
  const body = new FormData();
  body.append("file", file, file.name ?? "recording.wav");
  return (await call("/v1/classify", { method: "POST", body }, signal, onWait)).json();
}
