// The classifier's bars: takes {label: probability}, shows one bar a label in the order of the labels.

function bar(label) {
  const item = document.createElement("li");
  item.innerHTML = '<span class="word"></span><span class="track"><span class="fill"></span></span><data></data>';
  item.querySelector(".word").textContent = label;
  return item;
}

export const percent = (probability) => `${(100 * probability).toFixed(1)} %`;

export const mostProbable = (probabilities) => Object.keys(probabilities).reduce((a, b) => (probabilities[b] > probabilities[a] ? b : a));

export class Bars {
  constructor(list, labels) {
    this.items = new Map(labels.map((label) => [label, bar(label)]));
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
  }
}
