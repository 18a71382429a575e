// The section that compares: the same label and seed with the settings A and B, side by side.

import { generate } from "./api.js";
import { ClipCard } from "./clip.js";
import { describeGuides } from "./guides.js";
import { byLanguage } from "./languages.js";
import { announce } from "./notices.js";
import { unlock } from "./player.js";
import { Seed } from "./seed.js";
import { describe, Settings } from "./settings.js";
import { verdict } from "./speak.js";
import { Task } from "./task.js";

const START_B = { gamma: 0 }; // at first, A is the bundle's own settings and B the same without guidance; a page may say otherwise

/** The choices of one language under its name; without a language the choices alone. */
function wordOptions({ language, labels }) {
  const options = labels.map((label) => new Option(label));
  if (language === null) return options;
  const group = document.createElement("optgroup");
  group.label = language;
  group.append(...options);
  return [group];
}

export function startCompare(model) {
  const element = (id) => document.getElementById(id);
  const seed = new Seed(element("compare-seed"), false);
  const word = element("compare-label");
  word.append(...byLanguage(model).flatMap(wordOptions));
  const sides = [
    { name: "A", settings: new Settings(element("settings-a"), model, model.start), card: new ClipCard(element("clip-a"), model, "With the settings A") },
    { name: "B", settings: new Settings(element("settings-b"), model, model.other ?? START_B), card: new ClipCard(element("clip-b"), model, "With the settings B") },
  ];
  const task = new Task(...sides.map((side) => side.card));

  async function speakBoth() {
    const requests = sides.map((side) => ({ label: word.value, seed: seed.next(), ...side.settings.values() }));
    const replies = await task.run(`Speaking ${word.value} twice…`, (signal, onWait) =>
      Promise.all(requests.map((request) => generate(request, signal, onWait))));
    if (replies === null) return;
    await Promise.all(sides.map(({ name, card }, i) =>
      card.showGenerated(replies[i].clip, `${name}: ${verdict(replies[i].clip.probabilities)}`, describe(replies[i].settings, model) + describeGuides(replies[i].guides ?? []))));
    announce(sides.map(({ name }, i) => `${name} ${verdict(replies[i].clip.probabilities)}`).join("; "));
  }

  element("compare-form").addEventListener("submit", (event) => {
    event.preventDefault();
    unlock();
    speakBoth();
  });
}
