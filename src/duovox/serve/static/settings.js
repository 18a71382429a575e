// The settings of one generation: guidance, steps, sampler. Takes defaults and limits from the model; gives what differs from them.

/** Tie a slider to its number: each follows the other. */
function tie(number, slider, most) {
  number.max = slider.max = most;
  number.addEventListener("input", () => (slider.value = number.value));
  slider.addEventListener("input", () => (number.value = slider.value));
}

export class Settings {
  /** `start`: what stands here instead of the defaults at first and after a reset. */
  constructor(host, { defaults, limits, samplers }, start = {}) {
    host.append(document.getElementById("settings-template").content.cloneNode(true));
    const part = (name) => host.querySelector(name);
    this.inputs = { gamma: part(".gamma"), steps: part(".steps"), sampler: part(".sampler") };
    this.inputs.sampler.append(...samplers.map((name) => new Option(name)));
    tie(this.inputs.gamma, part(".gamma-slider"), limits.gamma);
    tie(this.inputs.steps, part(".steps-slider"), limits.steps);
    this.defaults = defaults;
    this.start = { ...defaults, ...start };
    this.reset();
  }

  reset() {
    for (const [name, input] of Object.entries(this.inputs)) {
      input.value = this.start[name];
      input.dispatchEvent(new Event("input"));
    }
  }

  /** The settings that differ from the bundle's own, for a request; an empty field is the bundle's own. */
  values() {
    const { gamma, steps, sampler } = this.inputs;
    const given = {
      gamma: gamma.value === "" ? this.defaults.gamma : Number(gamma.value),
      steps: steps.value === "" ? this.defaults.steps : Number(steps.value),
      sampler: sampler.value,
    };
    return Object.fromEntries(Object.entries(given).filter(([name, value]) => value !== this.defaults[name]));
  }
}
