// One request at a time in one place of the page. Takes the work from a section; shows what is under way and how to cancel it.

import { announce, clearError, showError } from "./notices.js";

export class Task {
  #controller = null;

  /** `cards`: the clip cards that show the work. */
  constructor(...cards) {
    this.cards = cards;
    for (const card of cards) card.cancelButton.addEventListener("click", () => this.cancel());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.#controller) this.cancel();
    });
  }

  cancel() {
    if (this.#controller) announce("Cancelled");
    this.#controller?.abort();
    this.#finish(this.#controller);
  }

  /** Run `work(signal, onWait)`, replacing what is under way. Gives its result, or null if it failed or was replaced. */
  async run(text, work) {
    this.cancel();
    clearError();
    const controller = (this.#controller = new AbortController());
    this.#say(text);
    const onWait = (message, seconds) => this.#say(`${message} (trying again in ${Math.ceil(seconds)} s)`);
    try {
      const result = await work(controller.signal, onWait);
      return controller.signal.aborted ? null : result;
    } catch (error) {
      if (!controller.signal.aborted) showError(error.message);
      controller.abort(); // the other request of a pair is of no use alone
      return null;
    } finally {
      this.#finish(controller);
    }
  }

  #say(text) {
    announce(text);
    for (const card of this.cards) card.showWork(text);
  }

  #finish(controller) {
    if (controller === null || controller !== this.#controller) return;
    this.#controller = null;
    for (const card of this.cards) card.hideWork();
  }
}
