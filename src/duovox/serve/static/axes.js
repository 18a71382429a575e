// Axes of a spectrogram: takes the range in Hz and in seconds, writes labels at their places.

const HERTZ = [0, 500, 1000, 2000, 4000, 8000, 16000];
const MOST_SECONDS = 5;

/** Slaney's mel scale, as in the model: linear below 1 kHz, logarithmic above. */
const mel = (hertz) => (hertz < 1000 ? (hertz * 3) / 200 : 15 + (27 * Math.log(hertz / 1000)) / Math.log(6.4));

function label(text, side, part) {
  const span = document.createElement("span");
  span.textContent = text;
  span.style[side] = `${100 * part}%`;
  return span;
}

export function drawHertz(element, low, high) {
  const place = (hertz) => (mel(hertz) - mel(low)) / (mel(high) - mel(low));
  const shown = HERTZ.filter((hertz) => hertz >= low && hertz <= high);
  element.replaceChildren(...shown.map((hertz) => label(String(hertz), "bottom", place(hertz))));
}

export function drawSeconds(element, seconds) {
  const step = seconds / (MOST_SECONDS - 1);
  const times = Array.from({ length: MOST_SECONDS }, (_, index) => index * step);
  const text = (time) => (time === seconds ? `${Number(time.toFixed(2))} s` : String(Number(time.toFixed(2))));
  element.replaceChildren(...times.map((time) => label(text(time), "left", time / seconds)));
}
