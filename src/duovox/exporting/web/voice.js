// The model: takes the manifest of an exported voice and its graphs, open; gives clips and what is heard in sounds. Knows no page.

import { LogMel } from "./mel.js";
import { TorchNormal } from "./random.js";
import { checkTaught, levelsOf } from "./repertoire.js";
import { guidanceScale, sample, sampleJumps } from "./sampling.js";

const MOST = 6; // highest log-mel handed to the vocoder
const LOUDEST = 3; // a full-scale sine reaches 2.6
const MOST_CLIPPED = 0.05;
const QUIETEST = 1e-4;

const highest = (values) => values.reduce((top, value) => Math.max(top, value), -Infinity);

/** Why a listener would call a clip noise or nothing; empty for one that may be speech. */
export function faultOf(wave, logMel) {
  if (!logMel.every(Number.isFinite)) return "it holds values that are not finite";
  const loudest = highest(logMel);
  if (loudest > LOUDEST) return `its log-mel reaches ${loudest.toFixed(1)}, louder than a full-scale tone`;
  const clipped = wave.reduce((count, value) => count + (Math.abs(value) >= 0.999), 0) / wave.length;
  if (clipped > MOST_CLIPPED) return `${Math.round(100 * clipped)} % of its samples are at full scale`;
  return highest(wave.map(Math.abs)) < QUIETEST ? "it is silent" : "";
}

function softmax(logits) {
  const top = highest(logits);
  const shares = Array.from(logits, (logit) => Math.exp(logit - top));
  const sum = shares.reduce((total, share) => total + share, 0);
  return shares.map((share) => share / sum);
}

export class Voice {
  /** `graphs`: for each name of a graph a function of arrays (by the names of its inputs) that gives its output, both as
   *  {data, dims} and asynchronously. */
  constructor(manifest, graphs) {
    this.manifest = manifest;
    this.graphs = graphs;
    this.logMel = new LogMel(manifest.mel);
    const { frames, hop_length: hop, n_mels: mels } = manifest.mel;
    this.noise = new TorchNormal(0).draw((frames - 1) * hop); // the vocoder's, always the same
    this.shape = [1, 1, mels, frames];
  }

  /** The manifest's settings with changes. Throws an Error in words for what cannot be. */
  settings(changes) {
    const own = this.manifest.sample;
    const all = { ...own, ...changes };
    for (const name of ["steps", "last_sigma", "gamma", "guidance_low", "guidance_high"]) {
      all[name] = all[name] === "inf" ? Infinity : all[name];
      if (typeof all[name] !== "number" || Number.isNaN(all[name]) || all[name] < 0) throw new Error(`${name} must be a number from 0 on.`);
    }
    if (!Number.isInteger(all.steps) || all.steps < 1 || all.steps > 1000) throw new Error("steps must be a whole number from 1 to 1000.");
    if (all.guidance_low >= all.guidance_high) throw new Error("guidance_low must lie below guidance_high.");
    if (all.last_sigma >= this.manifest.noise.sigma_max) throw new Error("last_sigma must lie below the noise that sampling begins with.");
    if (all.guide_at !== own.guide_at) throw new Error(`This page guides at the ${own.guide_at} mel alone.`);
    this.#checkSampler(all);
    return all;
  }

  #checkSampler(settings) {
    const { step, repertoire } = this.manifest;
    if (settings.sampler !== "student") {
      if (!step) throw new Error(`sampler ${settings.sampler}: this page has its student alone; use preset turbo`);
    } else if (!repertoire) {
      throw new Error("this page has no student; export a bundle that has one, or take another sampler");
    } else checkTaught(repertoire, settings);
  }

  /** A clip {wave, logMel, probabilities}; label null is whatever comes. `onFrame(sigma, logMel)` is told of every evaluation; what it
   *  throws ends the sampling. */
  async generate({ label, seed, ...changes }, onFrame) {
    const { manifest, shape } = this;
    const settings = this.settings(changes);
    if (!Number.isSafeInteger(seed) || seed < 0) throw new Error("The seed must be a whole number from 0 on.");
    const number = label === null ? -1 : manifest.labels.indexOf(label);
    if (number < 0 && label !== null) throw new Error(`unknown label ${label}; this model speaks: ${manifest.labels.join(", ")}`);
    const normal = new TorchNormal(seed);
    const draw = () => normal.draw(shape[2] * shape[3]);
    const ask = async (graph, noised, numbers) => {
      const estimate = await this.#ask(graph, noised, number, numbers);
      await onFrame(numbers.sigma, this.#unscaled(estimate));
      return estimate;
    };
    const gammaAt = (sigma) => (number < 0 ? 0 : guidanceScale(settings, sigma, manifest.noise.sigma_data));
    const denoise = (noised, sigma) => ask("step", noised, { sigma, gamma: gammaAt(sigma) });
    const jump = (noised, sigma, to) => ask("student", noised, { sigma, to, gamma: settings.gamma });
    const mel = settings.sampler === "student"
      ? await sampleJumps(jump, draw, levelsOf(manifest.repertoire, settings.steps))
      : await sample(denoise, draw, settings, manifest.noise);
    const logMel = this.#unscaled(mel);
    const sound = logMel.map((value) => (Number.isFinite(value) ? value : 0));
    const wave = await this.graphs.vocoder({ log_mel: { data: sound, dims: shape }, noise: { data: this.noise, dims: [this.noise.length] } });
    const fault = faultOf(wave, logMel);
    if (fault) {
      const made = `${settings.sampler}, ${settings.steps} steps and gamma ${settings.gamma}`;
      throw new Error(`The clip ran off to no speech (seed ${seed}: ${fault}) with ${made}; take more steps or a lower gamma.`);
    }
    return { wave, logMel, ...(await this.classify(wave)) };
  }

  /** {probabilities, heard: log-mel} of a wave as long as a clip at most. */
  async classify(wave) {
    const { manifest, shape } = this;
    const heard = this.logMel.of(wave);
    const { shift, scale } = manifest.mel_scale;
    const padded = new Float32Array(manifest.mel.clip_samples);
    padded.set(wave);
    const given = {
      mel: { data: heard.map((value) => (value - shift) / scale), dims: shape },
      wave: { data: padded, dims: [1, padded.length] },
    };
    const [input] = manifest.classifier.inputs;
    const shares = softmax(await this.graphs.classifier({ [input]: given[input] }));
    return { heard, probabilities: Object.fromEntries(manifest.labels.map((name, i) => [name, shares[i]])) };
  }

  /** What `graph` says of a noised mel and a label; `numbers` are its other inputs by name, of which it takes those that it has. */
  #ask(graph, noised, label, numbers) {
    const given = {
      noised: { data: Float32Array.from(noised), dims: this.shape },
      label: { data: BigInt64Array.of(BigInt(label)), dims: [1] },
      ...Object.fromEntries(Object.entries(numbers).map(([name, value]) => [name, { data: Float32Array.of(value), dims: [1] }])),
    };
    return this.graphs[graph](Object.fromEntries(this.manifest[graph].inputs.map((name) => [name, given[name]])));
  }

  #unscaled(mel) {
    const { shift, scale } = this.manifest.mel_scale;
    const lowest = Math.log(this.manifest.mel.floor);
    return mel.map((value) => Math.min(MOST, Math.max(lowest, value * scale + shift)));
  }
}
