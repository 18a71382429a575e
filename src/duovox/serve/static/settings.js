// The settings of one generation: a control for each setting that the server's model describes, whatever it is called. Takes their kinds,
// ranges and defaults from /v1/model; gives what differs from the defaults.

import { Guides } from "./guides.js";

const SAID = ["gamma", "steps", "sampler"]; // always said of a clip
const FIRST = ["preset", ...SAID]; // always in sight; the others are under "More settings"

const copyOf = (template) => document.getElementById(template).content.cloneNode(true).firstElementChild;

const titled = (name) => name[0].toUpperCase() + name.slice(1).replaceAll("_", " ");

/** A number and its slider: each follows the other. */
function dial(setting) {
  const element = copyOf("setting-dial");
  const number = element.querySelector("[type=number]");
  const slider = element.querySelector("[type=range]");
  number.max = slider.max = setting.maximum;
  number.min = slider.min = setting.minimum ?? 0;
  number.step = slider.step = setting.kind === "integer" ? 1 : "any";
  if (setting.kind === "number") slider.step = (setting.maximum - slider.min) / 200;
  slider.classList.add(`${setting.name}-slider`);
  slider.ariaLabel = `${titled(setting.name)} slider`;
  number.addEventListener("input", () => (slider.value = number.value));
  slider.addEventListener("input", () => (number.value = slider.value));
  return { element, input: number, read: () => readNumber(number.value, setting) };
}

function choice(setting) {
  const element = copyOf("setting-choice");
  const input = element.querySelector("select");
  input.append(...setting.choices.map((name) => new Option(name)));
  return { element, input, read: () => input.value };
}

function toggle() {
  const element = copyOf("setting-switch");
  const input = element.querySelector("input");
  return { element, input, read: () => input.checked };
}

function field(setting) {
  const element = copyOf("setting-field");
  const input = element.querySelector("input");
  const read = () => (setting.kind === "text" ? input.value : readNumber(input.value, setting));
  return { element, input, read };
}

/** An empty field is the default; what is no number goes as it is, for the server to refuse in its words. */
function readNumber(text, setting) {
  const trimmed = text.trim();
  if (trimmed === "") return setting.default;
  return Number.isNaN(Number(trimmed)) ? trimmed : Number(trimmed);
}

function makeControl(setting) {
  const make = setting.kind === "choice" ? choice : setting.kind === "switch" ? toggle : setting.maximum === null ? field : dial;
  const control = make(setting);
  control.input.classList.add(setting.name);
  control.element.querySelector(".name").textContent = titled(setting.name);
  control.element.querySelector(".hint").textContent = setting.about;
  return control;
}

/** What a clip was made with, in a line: some settings always, and others that are not the model's own. */
export function describe(settings, model) {
  const others = model.settings.filter(({ name, default: own }) => !SAID.includes(name) && settings[name] !== own);
  return [...SAID, ...others.map(({ name }) => name)].map((name) => `${name} ${settings[name]}`).join(" · ");
}

export class Settings {
  /** `start`: what stands here instead of the defaults at first and after a reset. */
  constructor(host, model, start = {}) {
    host.append(copyOf("settings-template"));
    this.described = model.settings;
    this.guides = new Guides(host.querySelector(".guides"), model);
    this.controls = new Map(model.settings.map((setting) => [setting.name, makeControl(setting)]));
    const known = (name) => this.controls.has(name);
    const order = [...FIRST.filter(known), ...[...this.controls.keys()].filter((name) => !FIRST.includes(name))];
    for (const name of order) host.querySelector(FIRST.includes(name) ? ".first" : ".others").append(this.controls.get(name).element);
    this.start = { ...Object.fromEntries(model.settings.map((setting) => [setting.name, setting.default])), ...start };
    this.#startWhereSamplersWork(model.fewest_steps);
    this.#beginWithPresets(model.presets);
    this.reset();
  }

  reset() {
    this.#put(this.start);
    this.guides.reset();
  }

  #put(values) {
    for (const [name, { input }] of this.controls) {
      if (input.type === "checkbox") input.checked = values[name];
      else input.value = values[name];
      input.dispatchEvent(new Event("input"));
    }
  }

  /** For a request: the preset, where it is not the bundle's own, and the settings that differ from what it begins with. */
  values() {
    const preset = this.controls.get("preset").read();
    const { preset: _, ...begun } = { ...this.defaults, ...this.presets[preset] };
    const known = Object.keys(begun).filter((name) => this.controls.has(name));
    const given = known.map((name) => [name, this.controls.get(name).read()]);
    const changed = Object.fromEntries(given.filter(([name, value]) => value !== begun[name]));
    const guides = this.guides.values();
    return { ...(preset === this.defaults.preset ? {} : { preset }), ...changed, ...(guides.length ? { guides } : {}) };
  }

  /** A preset that is chosen sets the other controls; only those that the bundle has the parts for can be. */
  #beginWithPresets(presets) {
    this.presets = presets;
    this.defaults = Object.fromEntries(this.described.map(({ name, default: own }) => [name, own]));
    const { input } = this.controls.get("preset");
    for (const option of [...input.options]) option.disabled = option.hidden = !(option.value in presets);
    input.addEventListener("change", () => this.#put({ ...presets[input.value], preset: input.value }));
  }

  /** Let the steps begin, on the slider, where the chosen sampler gives words; fewer can still be typed. */
  #startWhereSamplersWork(fewest) {
    const [sampler, steps] = ["sampler", "steps"].map((name) => this.controls.get(name));
    const slider = steps.element.querySelector("[type=range]");
    sampler.input.addEventListener("input", () => {
      slider.min = fewest[sampler.input.value] ?? 1;
      if (Number(steps.input.value) < Number(slider.min)) steps.input.value = slider.min;
      slider.value = steps.input.value;
    });
  }
}
