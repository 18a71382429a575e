// The guides that the server offers: of each what is wanted, and a slider for how strongly. Takes them from /v1/model; gives what a request
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

/** What steered a clip, in words; empty where nothing did. */
export const describeGuides = (guides) =>
  guides.map(({ name, target, gamma }) => ` · ${name} ${Object.keys(target).join(", ")} ${gamma}`).join("");

export class Guides {
  constructor(host, model) {
    this.rows = (model.guides ?? []).map((guide) => ({ guide, target: chooser(guide), gamma: strength(guide, model.limits.guide_gamma) }));
    for (const { guide, target, gamma } of this.rows) {
      for (const { element } of [target, gamma]) element.dataset.guide = guide.name;
      host.append(target.element, gamma.element);
      target.input.addEventListener("input", () => (gamma.element.hidden = target.input.value === OFF));
    }
    host.hidden = this.rows.length === 0;
  }

  reset() {
    for (const { guide, target, gamma } of this.rows) {
      [target.input.value, gamma.input.value] = [OFF, guide.gamma];
      for (const { input } of [target, gamma]) input.dispatchEvent(new Event("input"));
    }
  }

  /** For a request: those that are on. An empty strength is the guide's own; what is no number goes as it is, for the server to refuse. */
  values() {
    const on = this.rows.filter(({ target }) => target.input.value !== OFF);
    return on.map(({ guide, target, gamma }) => {
      const text = gamma.input.value.trim();
      const number = Number.isNaN(Number(text)) ? text : Number(text);
      return { name: guide.name, target: target.input.value, gamma: text === "" ? null : number };
    });
  }
}
