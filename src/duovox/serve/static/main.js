// Starts the page: asks the server for its model, then hands it to the three sections.

import { fetchModel } from "./api.js";
import { startCompare } from "./compare.js";
import { startListen } from "./listen.js";
import { announce, showError } from "./notices.js";
import { Seed } from "./seed.js";
import { Settings } from "./settings.js";
import { startSpeak } from "./speak.js";

const loading = document.getElementById("loading");
const millions = (count) => `${(count / 1e6).toFixed(2)} M`;

function showFacts({ name, labels, parameters, digest, version }) {
  const others = [["score subnet", parameters.subnet], ["student", parameters.student], ["vocoder", parameters.vocoder]];
  const parts = others.filter(([, count]) => count).map(([part, count]) => `${part} ${millions(count)}`);
  parts.unshift(`classifier ${millions(parameters.classifier)} (frozen)`);
  const text = `Bundle ${name}, ${labels.length} words · ${parts.join(" · ")} · digest ${digest.slice(0, 12)} · duovox ${version}`;
  document.getElementById("facts").textContent = text;
}

function startSections(model) {
  const settings = new Settings(document.getElementById("settings"), model, model.start);
  const seed = new Seed(document.getElementById("seed"), true);
  document.getElementById("controls").addEventListener("reset", (event) => {
    event.preventDefault(); // the form's own reset would empty the fields
    settings.reset();
    seed.reset();
    announce("The defaults are back");
  });
  document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
  startSpeak(model, settings, seed);
  startListen(model, settings, seed);
  startCompare(model);
}

async function start() {
  try {
    const model = await fetchModel((message) => (loading.textContent = `${message}; waiting…`));
    showFacts(model);
    startSections(model);
    loading.hidden = true;
    document.body.classList.add("ready");
  } catch (error) {
    loading.textContent = "Nothing to speak with yet: reload the page to try again.";
    showError(error.message);
  }
}

start();
