// What the person takes away from a clip: the file, the command, the Python. Takes the request and its reply from `speak`.

import { generateFile } from "./api.js";
import { fromBase64 } from "./bytes.js";
import { announce } from "./notices.js";

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** Copy an element's text; where the browser forbids it (no https), select it for the person to copy. */
async function copy(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
    return "Copied";
  } catch {
    getSelection().selectAllChildren(element);
    return "Press Ctrl+C";
  }
}

function fleeting(button, text) {
  announce(text);
  button.textContent = text;
  setTimeout(() => (button.textContent = "Copy"), 2000);
}

export class Takeaway {
  constructor(card, task) {
    card.append(document.getElementById("takeaway-template").content.cloneNode(true));
    this.box = card.querySelector(".takeaway");
    this.box.hidden = true;
    this.task = task;
    for (const button of this.box.querySelectorAll("[data-format]")) button.addEventListener("click", () => this.#download(button.dataset.format));
    for (const button of this.box.querySelectorAll("[data-copy]")) {
      button.addEventListener("click", async () => fleeting(button, await copy(this.box.querySelector(`.${button.dataset.copy}`))));
    }
  }

  show(request, reply) {
    this.request = request;
    this.clip = reply.clip;
    this.box.querySelector(".command").textContent = reply.command;
    this.box.querySelector(".python").textContent = reply.python;
    this.box.hidden = false;
  }

  /** The clip at hand as it is; another format is fetched: the same request gives the same clip. */
  async #download(format) {
    const type = `audio/${format}`;
    const name = `${this.request.label ?? "any"}_${this.request.seed}.${format}`;
    const blob = this.clip.media_type === type
      ? new Blob([fromBase64(this.clip.audio)], { type })
      : await this.task.run(`Fetching ${name}…`, (signal, onWait) => generateFile(this.request, format, signal, onWait));
    if (blob) save(blob, name);
  }
}
