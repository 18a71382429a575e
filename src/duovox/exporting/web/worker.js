// The model on a thread of its own. Takes messages {id, kind, ...} from `api`; answers {id, frame}, {id, result} or {id, error}.

import { hear } from "./hearing.js";
import * as ort from "./ort.wasm.min.mjs";
import { Voice } from "./voice.js";

const MOST_THREADS = 4;
const cancelled = new Set();
const at = (name) => new URL(name, import.meta.url).href;

async function bytes(name) {
  const response = await fetch(at(name)).catch(() => null);
  if (!response?.ok) throw new Error(`The model's file ${name.split("/").pop()} cannot be loaded; reload the page to try again.`);
  return response;
}

const whole = async (name) => new Uint8Array(await (await bytes(name)).arrayBuffer());

/** A packed file, unpacked: not every host packs what it sends, and the runtime shrinks to a quarter. */
async function unpacked(name) {
  const stream = (await bytes(name)).body.pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

async function open({ file, inputs, outputs }, weights) {
  const external = [{ path: "weights.bin", data: weights }];
  const session = await ort.InferenceSession.create(await whole(`../model/${file}`), { executionProviders: ["wasm"], externalData: external });
  return async (given) => {
    const tensor = ({ data, dims }) => new ort.Tensor(data instanceof BigInt64Array ? "int64" : "float32", data, dims);
    const result = await session.run(Object.fromEntries(inputs.map((name) => [name, tensor(given[name])])));
    return result[outputs[0]].data;
  };
}

async function load() {
  ort.env.wasm.wasmPaths = { mjs: at("ort-wasm-simd-threaded.mjs") };
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency ?? 1) : 1;
  ort.env.wasm.wasmBinary = await unpacked("ort-wasm-simd-threaded.wasm.packed");
  const manifest = await (await bytes("../model/manifest.json")).json();
  const weights = await whole("../model/weights.bin");
  const graphs = {};
  for (const name of ["step", "student", "vocoder", "classifier"].filter((one) => manifest[one])) graphs[name] = await open(manifest[name], weights);
  return new Voice(manifest, graphs);
}

const voice = load();

/** Lets messages in, and throws where the work `id` was cancelled meanwhile. */
async function breathe(id) {
  await new Promise((resolve) => setTimeout(resolve));
  if (cancelled.delete(id)) throw new Error("cancelled");
}

const work = {
  load: async () => ({ threads: (await voice) && ort.env.wasm.numThreads }),
  generate: async (id, { request }) =>
    (await voice).generate(request, async (sigma, logMel) => {
      postMessage({ id, frame: { sigma, logMel } });
      await breathe(id);
    }),
  classify: async (_, { channels, rate }) => {
    const { manifest } = await voice;
    const { wave, notes } = hear(channels, rate, manifest.mel.clip_samples);
    return { ...(await (await voice).classify(wave)), notes };
  },
};

let before = Promise.resolve(); // one work at a time

self.onmessage = ({ data: { id, kind, ...rest } }) => {
  if (kind === "cancel") {
    cancelled.add(id);
    return;
  }
  before = before.then(async () => {
    try {
      if (cancelled.delete(id)) throw new Error("cancelled");
      postMessage({ id, result: await work[kind](id, rest) });
    } catch (error) {
      postMessage({ id, error: error.message });
    }
  });
};
