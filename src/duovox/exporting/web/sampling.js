// From noise to a mel: the samplers. Takes denoise(noised, sigma) -> denoised, which may take its time, and the settings, or a student's
// jump(noised, sigma, to) -> estimate and its levels; knows nothing of networks. Data are Float32Arrays.

/** steps + 1 noise levels from the highest down to the lowest, or to `last` where that is higher, and then 0 (Karras et al. 2022, eq. 5). */
export function sigmaGrid(steps, { sigma_max: high, sigma_min: low, rho }, last = 0) {
  const [from, to] = [high ** (1 / rho), Math.max(low, last) ** (1 / rho)];
  const levels = Array.from({ length: steps }, (_, i) => (from + (steps > 1 ? i / (steps - 1) : 0) * (to - from)) ** rho);
  return [...levels, 0];
}

/** Second order (the same, algorithm 1). */
export async function heun(denoise, noised, sigmas) {
  for (let i = 0; i + 1 < sigmas.length; i++) {
    const [here, there] = [sigmas[i], sigmas[i + 1]];
    const start = noised;
    const clean = await denoise(start, here);
    const slope = start.map((x, j) => (x - clean[j]) / here);
    noised = start.map((x, j) => x + (there - here) * slope[j]);
    if (there === 0) continue;
    const moved = noised;
    const again = await denoise(moved, there);
    noised = start.map((x, j) => x + ((there - here) * (slope[j] + (moved[j] - again[j]) / there)) / 2);
  }
  return noised;
}

/** DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095). */
export async function dpmpp2m(denoise, noised, sigmas) {
  let previous = null;
  let previousStep = 0;
  for (let i = 0; ; i++) {
    const [here, there] = [sigmas[i], sigmas[i + 1]];
    const clean = await denoise(noised, here);
    if (there === 0) return clean;
    const step = Math.log(here / there);
    const reach = previous === null ? 0 : step / (2 * previousStep);
    const before = previous ?? clean;
    const ratio = there / here;
    noised = noised.map((x, j) => ratio * x + (1 - ratio) * (clean[j] + reach * (clean[j] - before[j])));
    [previous, previousStep] = [clean, step];
  }
}

const END = 1e-3; // smallest time of the VP-SDE

const vpSigma = (time, { beta_min: low, beta_max: high }) => Math.sqrt(Math.expm1(0.5 * (high - low) * time ** 2 + low * time));

/** Reverse-time VP-SDE (Song et al. 2021, eq. 6) from time 1; `draw()` gives fresh noise. */
export async function eulerMaruyama(denoise, noise, steps, draw) {
  const times = Array.from({ length: steps + 1 }, (_, i) => 1 + (i / steps) * (END - 1));
  const sigmas = times.map((time) => vpSigma(time, noise));
  const scales = sigmas.map((sigma) => 1 / Math.sqrt(1 + sigma ** 2));
  let x = draw().map((eps) => eps * sigmas[0] * scales[0]);
  for (let i = 0; i < steps; i++) {
    const [sigma, scale, span] = [sigmas[i], scales[i], times[i] - times[i + 1]];
    const beta = noise.beta_min + (noise.beta_max - noise.beta_min) * times[i];
    const unscaled = x.map((value) => value / scale);
    const clean = await denoise(unscaled, sigma);
    const fresh = i < steps - 1 ? draw() : null;
    const score = (j) => (clean[j] - unscaled[j]) / (sigma ** 2 * scale);
    x = x.map((value, j) => value + ((beta * value) / 2 + beta * score(j)) * span + (fresh ? Math.sqrt(beta * span) * fresh[j] : 0));
  }
  return x.map((value) => value / scales[steps]);
}

/** One item: settings.sampler over settings.steps, from the noise that draw() gives. */
export function sample(denoise, draw, settings, noise) {
  if (settings.sampler === "euler_maruyama") return eulerMaruyama(denoise, noise, settings.steps, draw);
  const sigmas = sigmaGrid(settings.steps, noise, settings.last_sigma);
  const start = draw().map((eps) => eps * sigmas[0]);
  return (settings.sampler === "heun" ? heun : dpmpp2m)(denoise, start, sigmas);
}

/** One item, by jumps of a flow map over noise levels that fall to 0 (Boffi et al. 2025). */
export async function sampleJumps(jump, draw, levels) {
  let noised = draw().map((eps) => eps * levels[0]);
  for (let i = 0; i + 1 < levels.length; i++) {
    const ratio = levels[i + 1] / levels[i];
    const estimate = await jump(noised, levels[i], levels[i + 1]);
    noised = noised.map((x, j) => ratio * x + (1 - ratio) * estimate[j]);
  }
  return noised;
}

/** How strongly to guide at a noise level. */
export function guidanceScale({ gamma, guidance_low: low, guidance_high: high, schedule }, sigma, sigmaData) {
  if (sigma < low || sigma > high) return 0;
  const share = sigma ** 2 / (sigma ** 2 + sigmaData ** 2);
  return gamma * { constant: 1, early: share, late: 1 - share }[schedule];
}
