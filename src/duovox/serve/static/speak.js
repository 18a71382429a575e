// The section that speaks: a button for each word. Takes model, settings and seed from `main`; asks `api`, fills a card.

import { generate } from "./api.js";
import { mostProbable, percent } from "./bars.js";
import { ClipCard } from "./clip.js";
import { byLanguage } from "./languages.js";
import { announce } from "./notices.js";
import { unlock } from "./player.js";
import { Takeaway } from "./takeaway.js";
import { Task } from "./task.js";

/** What the page calls a label; null is a word of the model's own choice. */
export const nameOf = (label) => label ?? "anything";

const MANY = 12; // more words than this have small buttons

/** "heard as three, 99.1 %". */
export function verdict(probabilities) {
  const top = mostProbable(probabilities);
  return `heard as ${top}, ${percent(probabilities[top])}`;
}

function wordButton(label, press) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = nameOf(label);
  button.classList.add("word-button", ...(label === null ? ["any"] : []));
  button.addEventListener("click", () => press(label, button));
  return button;
}

/** The buttons of one language under its name; without a language the buttons alone. */
function wordGroup({ language, labels }, press) {
  const buttons = labels.map((label) => wordButton(label, press));
  if (language === null) return buttons;
  const name = document.createElement("p");
  name.className = "language";
  name.textContent = language;
  const group = document.createElement("div");
  group.className = "words";
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", language);
  group.append(...buttons);
  const whole = document.createElement("div");
  whole.className = "language-group";
  whole.append(name, group);
  return [whole];
}

export function startSpeak(model, settings, seed) {
  const words = document.getElementById("words");
  words.classList.toggle("many", model.labels.length > MANY);
  const card = new ClipCard(document.getElementById("spoken"), model, "Nothing spoken yet");
  const task = new Task(card);
  const takeaway = new Takeaway(card.card, task);

  async function press(label, button) {
    unlock();
    for (const other of words.querySelectorAll(".word-button")) other.classList.toggle("chosen", other === button);
    const request = { label, seed: seed.next(), ...settings.values() };
    const reply = await task.run(`Speaking ${nameOf(label)}…`, (signal, onWait) => generate(request, signal, onWait));
    if (reply === null) return;
    await card.showGenerated(reply.clip, nameOf(label), `seed ${request.seed} · ${verdict(reply.clip.probabilities)}`);
    takeaway.show(request, reply);
    card.player.play();
    announce(`${nameOf(label)}, seed ${request.seed}, ${verdict(reply.clip.probabilities)}`);
  }

  words.replaceChildren(...byLanguage(model).flatMap((group) => wordGroup(group, press)), wordButton(null, press));
}
