// What a student can be asked: takes the repertoire from the manifest and settings of sampling; gives the levels of its jumps, or an Error
// in the words of the model's other doors.

const taughtGamma = ([low, high = low]) => (low === high ? `gamma ${low}` : `a gamma between ${low} and ${high}`);

/** The noise levels of so many jumps, falling to 0. */
export function levelsOf({ levels }, evaluations) {
  const found = levels.find((some) => some.length === evaluations + 1);
  if (found) return found;
  const taught = levels.map((some) => some.length - 1).sort((a, b) => a - b).join(", ");
  throw new Error(`the student was not taught ${evaluations} steps; set steps to one of ${taught}`);
}

export function checkTaught(repertoire, { steps, gamma, guidance_low: from, guidance_high: to, schedule }) {
  levelsOf(repertoire, steps);
  const { gammas } = repertoire;
  if (gamma < gammas[0] || gamma > gammas.at(-1)) {
    throw new Error(`the student was taught ${taughtGamma(gammas)}, not ${gamma}; set gamma to that, or take another sampler`);
  }
  if (from > 0 || to < Infinity || schedule !== "constant") {
    throw new Error("a student has its guidance within it: leave out the interval, schedule and guide_at, or take another sampler");
  }
}
