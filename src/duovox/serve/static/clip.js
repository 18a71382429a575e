// The card of one clip: spectrogram, bars, player. Takes what the API said about a sound; the sections of the page fill it.

import { Bars } from "./bars.js";
import { fromBase64, readPicture } from "./bytes.js";
import { Player } from "./player.js";
import { Spectrogram } from "./spectrogram.js";

export class ClipCard {
  /** Put an empty card into `host`; `invitation` is what it says until it has a sound. */
  constructor(host, model, invitation) {
    host.append(document.getElementById("clip-template").content.cloneNode(true));
    this.card = host.querySelector(".clip");
    this.part = (name) => this.card.querySelector(name);
    this.seconds = model.seconds;
    const span = { low: model.mel.low_hz, high: model.mel.high_hz, seconds: model.seconds };
    this.spectrogram = new Spectrogram(this.part(".spectrogram"), this.part(".scrubber"), span);
    this.bars = new Bars(this.part(".bars"), model);
    this.player = new Player(this.part(".play"), this.part(".playhead"));
    this.cancelButton = this.part(".cancel");
    this.part(".title").textContent = invitation;
  }

  showWork(text) {
    this.card.setAttribute("aria-busy", "true");
    this.part(".working").hidden = false;
    this.part(".working-text").textContent = text;
  }

  hideWork() {
    this.card.removeAttribute("aria-busy");
    this.part(".working").hidden = true;
  }

  /** Show a clip of /v1/generate. */
  async showGenerated(clip, title, note) {
    const frames = clip.frames.map(({ sigma, mel }) => ({ sigma, picture: readPicture(mel) }));
    await this.#show(fromBase64(clip.audio), frames, clip.probabilities, title, note);
  }

  /** Show a sound of the person's and the reply of /v1/classify about it. */
  async showHeard(bytes, reply, title, note) {
    await this.#show(bytes, [{ sigma: 0, picture: readPicture(reply.mel) }], reply.probabilities, title, note);
  }

  async #show(bytes, frames, probabilities, title, note) {
    this.part(".title").textContent = title;
    this.part(".note").textContent = note;
    this.card.classList.add("filled");
    this.bars.show(probabilities);
    await this.player.load(bytes, this.seconds);
    this.spectrogram.show(frames, `Spectrogram of ${title}, low frequencies at the bottom`);
  }
}
