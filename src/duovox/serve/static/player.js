// Plays sounds, one at a time. Takes bytes of sound files; a button and a playhead on the picture show what plays.

let context = null;
let stopPlaying = () => {};

/** To be called in a press or a key, so that browsers let the page sound later. */
export function unlock() {
  context ??= new AudioContext();
  if (context.state === "suspended") context.resume();
}

export class Player {
  #sound = null;
  #stop = null;

  constructor(button, playhead) {
    this.button = button;
    this.playhead = playhead;
    button.addEventListener("click", () => (this.#stop ? this.#stop() : this.play()));
  }

  /** Take the bytes of a sound file, of which the picture shows `seconds`. Says whether the browser can decode them. */
  async load(bytes, seconds) {
    context ??= new AudioContext();
    this.#stop?.();
    this.seconds = seconds;
    this.#sound = await context.decodeAudioData(bytes.slice().buffer).catch(() => null);
    this.button.disabled = this.#sound === null;
    this.button.title = this.#sound ? "" : "This browser cannot play this kind of file";
  }

  play() {
    if (this.#sound === null) return;
    unlock();
    stopPlaying();
    const source = new AudioBufferSourceNode(context, { buffer: this.#sound });
    source.connect(context.destination);
    source.start();
    this.#stop = stopPlaying = () => source.stop();
    source.onended = () => this.#ended(source);
    this.source = source;
    this.#show(true);
    this.#follow(source, context.currentTime);
  }

  #ended(source) {
    if (source !== this.source) return;
    this.#stop = this.source = null;
    this.#show(false);
  }

  #show(playing) {
    this.button.classList.toggle("playing", playing);
    this.button.querySelector("span").textContent = playing ? "Stop" : "Play";
    this.button.querySelector("use").setAttribute("href", playing ? "#icon-stop" : "#icon-play");
    this.playhead.hidden = !(playing && this.#sound.duration < 1.05 * this.seconds);
  }

  #follow(source, start) {
    if (source !== this.source) return;
    const part = (context.currentTime - start) / this.seconds;
    this.playhead.style.left = `${Math.min(100, 100 * Math.max(0, part))}%`;
    requestAnimationFrame(() => this.#follow(source, start));
  }
}
