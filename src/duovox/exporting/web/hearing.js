// Which second of a sound counts, and which sounds cannot be heard: the rule of the model's other doors. Takes channels at the model's
// rate, gives {wave, notes}; throws an Error in words.

const SILENCE = 1e-4; // nothing beyond this from the mean: silent
const LOUDEST = 2; // beyond this it is on another scale
const CANCELLING = 0.1; // channels cancel where their average has less than this share of the power of independent ones

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

function power(wave) {
  const middle = mean(wave);
  return wave.reduce((sum, value) => sum + (value - middle) ** 2, 0) / wave.length;
}

/** The channels as one: their average, or the loudest of channels that cancel. */
function toMono(channels, notes) {
  const average = channels[0].map((_, i) => mean(channels.map((channel) => channel[i])));
  const powers = channels.map(power);
  if (power(average) >= (CANCELLING * mean(powers)) / channels.length) return average;
  const loudest = powers.indexOf(Math.max(...powers));
  notes.push(`its ${channels.length} channels cancel, channel ${loudest + 1} counts alone`);
  return channels[loudest];
}

/** Where the `samples` samples with the most energy start. */
export function loudestStart(wave, samples) {
  let energy = 0;
  let best = 0;
  let most = 0;
  for (let i = 0; i < wave.length; i++) {
    energy += wave[i] ** 2 - (i >= samples ? wave[i - samples] ** 2 : 0);
    if (i >= samples - 1 && energy > most) [best, most] = [i - samples + 1, energy];
  }
  return best;
}

export function hear(channels, rate, samples) {
  const peak = channels.reduce((highest, channel) => channel.reduce((top, value) => Math.max(top, Math.abs(value)), highest), 0);
  if (!channels[0]?.length) throw new Error("The sound holds no samples.");
  if (!(peak <= LOUDEST)) throw new Error("The sound is on another scale: its samples go far beyond full scale.");
  const notes = [];
  const whole = toMono(channels, notes);
  const start = loudestStart(whole, samples);
  const wave = whole.slice(start, start + samples).map((value) => Math.max(-1, Math.min(1, value)));
  const middle = mean(wave);
  if (wave.every((value) => Math.abs(value - middle) < SILENCE)) throw new Error("The sound is silent: nothing in it can be heard.");
  if (whole.length > samples) {
    const [length, part, from] = [whole.length, samples, start].map((count) => `${Number((count / rate).toPrecision(3))} s`);
    notes.push(`lasts ${length}, the loudest ${part} from ${from} on counts`);
  }
  return { wave, notes };
}
