// A spectrogram on a canvas that can form out of noise. Takes frames {sigma, picture} from a clip; a scrubber goes through them.

import { drawHertz, drawSeconds } from "./axes.js";
import { COLOURS } from "./colours.js";

const ROWS = 80;
const COLUMNS = 64;
const FORMING = 1000; // milliseconds from the first frame to the last
const calm = matchMedia("(prefers-reduced-motion: reduce)");

const sigmaText = (sigma) => `σ ${sigma >= 10 ? sigma.toFixed(0) : sigma >= 1 ? sigma.toFixed(1) : sigma.toFixed(2)}`;

/** What stands there before a sound does: the arguments of a painting of pure noise. */
function noise() {
  const levels = Uint8Array.from({ length: ROWS * COLUMNS }, () => 255 * Math.random());
  const picture = { rows: ROWS, columns: COLUMNS, levels };
  return [picture, picture, 0];
}

export class Spectrogram {
  #frames = [];
  #running = 0;

  /** `figure` holds the canvas and axes, `scrubber` the slider; `span` is {low, high, seconds} of what is drawn. */
  constructor(figure, scrubber, span) {
    this.canvas = figure.querySelector("canvas");
    this.scrubber = scrubber;
    this.slider = scrubber.querySelector("input");
    this.output = scrubber.querySelector("output");
    this.slider.addEventListener("input", () => this.#seek(Number(this.slider.value)));
    this.#paint(...noise());
    drawHertz(figure.querySelector(".hertz"), span.low, span.high);
    drawSeconds(figure.querySelector(".seconds"), span.seconds);
  }

  /** Show frames, the last of them finished; several of them form one after the other. */
  show(frames, description) {
    this.#frames = frames;
    this.canvas.setAttribute("aria-label", description);
    this.scrubber.hidden = frames.length < 2;
    this.slider.max = frames.length - 1;
    this.#form();
  }

  #form() {
    const run = ++this.#running;
    const last = this.#frames.length - 1;
    const start = performance.now();
    const step = (now) => {
      if (run !== this.#running) return;
      const part = Math.min(1, Math.max(0, (now - start) / FORMING));
      this.#draw(part * last);
      if (part < 1) requestAnimationFrame(step);
    };
    if (last === 0 || calm.matches) this.#draw(last);
    else requestAnimationFrame(step);
  }

  #seek(index) {
    this.#running++;
    this.#draw(index);
  }

  /** Draw a place between two frames, in whole or in part. */
  #draw(position) {
    const below = Math.min(Math.floor(position), this.#frames.length - 1);
    const above = Math.min(below + 1, this.#frames.length - 1);
    this.#paint(this.#frames[below].picture, this.#frames[above].picture, position - below);
    const text = position === this.#frames.length - 1 ? "finished" : sigmaText(this.#frames[below].sigma);
    this.slider.value = Math.round(position);
    this.slider.setAttribute("aria-valuetext", text);
    this.output.textContent = text;
  }

  #paint(one, other, part) {
    const { rows, columns } = one;
    this.canvas.width = columns;
    this.canvas.height = rows;
    const image = new ImageData(columns, rows);
    for (let i = 0; i < rows * columns; i++) {
      const level = Math.round(one.levels[i] + (other.levels[i] - one.levels[i]) * part);
      const place = 4 * ((rows - 1 - Math.floor(i / columns)) * columns + (i % columns));
      image.data.set(COLOURS.subarray(3 * level, 3 * level + 3), place);
      image.data[place + 3] = 255;
    }
    this.canvas.getContext("2d").putImageData(image, 0, 0);
  }
}
