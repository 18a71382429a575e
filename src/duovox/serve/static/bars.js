// The classifier's bars: takes {label: probability}, shows one bar a label, with its language if it has one, in the order of the labels.

import { languageName, languageOf } from "./languages.js";

function bar(label, language) {
  const item = document.createElement("li");
  item.innerHTML = '<span><span class="word"></span></span><span class="track"><span class="fill"></span></span><data></data>';
  item.querySelector(".word").textContent = label;
  if (language !== null) item.firstElementChild.append(" ", tag(language));
  return item;
}

/** The code of a language, and its name for who points at it. */
function tag(language) {
  const small = document.createElement("small");
  small.textContent = language;
  small.title = languageName(language);
  return small;
}

export const percent = (probability) => `${(100 * probability).toFixed(1)} %`;

export const mostProbable = (probabilities) => Object.keys(probabilities).reduce((a, b) => (probabilities[b] > probabilities[a] ? b : a));

export class Bars {
  constructor(list, { labels, languages }) {
    this.items = new Map(labels.map((label) => [label, bar(label, languageOf(label, languages))]));
    list.replaceChildren(...this.items.values());
  }

  show(probabilities) {
    const top = mostProbable(probabilities);
    for (const [label, item] of this.items) {
      item.classList.toggle("most", label === top);
      item.querySelector(".fill").style.width = percent(probabilities[label]).replace(" ", "");
      item.querySelector("data").value = probabilities[label];
      item.querySelector("data").textContent = percent(probabilities[label]);
    }
    this.#reveal(this.items.get(top));
  }

  /** Of more bars than there is room for, show the one that counts. */
  #reveal(item) {
    const list = item.parentElement;
    list.scrollTop = item.offsetTop - list.offsetTop - (list.clientHeight - item.offsetHeight) / 2;
  }
}
