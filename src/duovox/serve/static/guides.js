// The guides that the server offers: of each what is wanted, how strongly, and by which way. Takes them from /v1/model; gives what a request
// names. A server without guides shows nothing.

const OFF = "off";

const copyOf = (template) => document.getElementById(template).content.cloneNode(true).firstElementChild;

function put(element, name, hint) {
  element.querySelector(".name").textContent = name;
  element.querySelector(".hint").textContent = hint;
}

/** The labels of a guide, and none. */
function chooser(guide) {
  const element = copyOf("setting-choice");
  const input = element.querySelector("select");
  input.append(...[OFF, ...guide.labels].map((name) => new Option(name)));
  input.classList.add("guide-target");
  put(element, `Guide ${guide.name}`, "What the clip is steered towards, beside the word.");
  return { element, input };
}

/** How strongly it guides, as a number and its slider. */
function strength(guide, most) {
  const element = copyOf("setting-dial");
  const [number, slider] = ["number", "range"].map((type) => element.querySelector(`[type=${type}]`));
  for (const input of [number, slider]) [input.min, input.max, input.step] = [0, most, input === slider ? most / 200 : "any"];
  slider.ariaLabel = `Strength of ${guide.name} slider`;
  number.classList.add("guide-gamma");
  number.addEventListener("input", () => (slider.value = number.value));
  slider.addEventListener("input", () => (number.value = slider.value));
  put(element, `Strength of ${guide.name}`, "How strongly this guide steers; 0 switches it off.");
  return { element, input: number };
}

/** How its gradient comes back; nothing where there is but one way. */
function way(guide) {
  const element = copyOf("setting-choice");
  const input = element.querySelector("select");
  input.append(...guide.ways.map((name) => new Option(name)));
  input.classList.add("guide-way");
  put(element, `Way of ${guide.name}`, "How its gradient comes back: through the denoiser, or straight, which is faster.");
  return { element, input };
}

/** What steered a clip, in words; empty where nothing did. */
export const describeGuides = (guides) =>
  guides
    .map(({ name, target, gamma, way }) => ` · ${name} ${Object.keys(target).join(", ")} ${gamma}${way === "straight" ? " straight" : ""}`)
    .join("");

export class Guides {
  constructor(host, model) {
    this.rows = (model.guides ?? []).map((guide) => this.row(guide, model.limits.guide_gamma, host));
    host.hidden = this.rows.length === 0;
  }

  /** The dials of one guide; how it steers is seen while it does. */
  row(guide, most, host) {
    const dials = { target: chooser(guide), gamma: strength(guide, most), way: way(guide) };
    for (const { element } of Object.values(dials)) element.dataset.guide = guide.name;
    host.append(...Object.values(dials).map(({ element }) => element));
    dials.target.input.addEventListener("input", () => {
      const off = dials.target.input.value === OFF;
      dials.gamma.element.hidden = off;
      dials.way.element.hidden = off || guide.ways.length < 2;
    });
    return { guide, ...dials };
  }

  reset() {
    for (const { guide, target, gamma, way } of this.rows) {
      [target.input.value, gamma.input.value, way.input.value] = [OFF, guide.gamma, guide.ways[0]];
      for (const { input } of [target, gamma]) input.dispatchEvent(new Event("input"));
    }
  }

  /** For a request: those that are on. An empty strength is the guide's own; what is no number goes as it is, for the server to refuse. */
  values() {
    const on = this.rows.filter(({ target }) => target.input.value !== OFF);
    return on.map(({ guide, target, gamma, way }) => {
      const text = gamma.input.value.trim();
      const number = Number.isNaN(Number(text)) ? text : Number(text);
      const asked = { name: guide.name, target: target.input.value, gamma: text === "" ? null : number };
      return way.input.value === guide.ways[0] ? asked : { ...asked, way: way.input.value };
    });
  }
}
