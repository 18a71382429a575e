// The seed of the noise: a number, a die, a lock. Unlocked, every press takes a new one.

const SEEDS = 100000; // drawn seeds lie below this, short enough to be read aloud

export class Seed {
  #fresh = true; // shown, but not used yet

  /** Where `lockable` is false, the seed stays until the person changes it. */
  constructor(host, lockable) {
    host.append(document.getElementById("seed-template").content.cloneNode(true));
    this.number = host.querySelector(".seed-number");
    this.lock = host.querySelector(".lock");
    this.lock.hidden = !lockable;
    this.locked = !lockable;
    host.querySelector(".dice").addEventListener("click", () => this.#roll());
    this.lock.addEventListener("click", () => this.#keep(!this.locked));
    this.number.addEventListener("input", () => this.#keep(true));
  }

  get value() {
    return Number(this.number.value);
  }

  /** The seed to use now. */
  next() {
    if (!this.locked && !this.#fresh) this.#roll();
    this.#fresh = false;
    return this.value;
  }

  reset() {
    this.number.value = 0;
    this.#fresh = true;
    this.#keep(this.lock.hidden);
  }

  #roll() {
    this.number.value = Math.floor(Math.random() * SEEDS);
    this.#fresh = true;
  }

  #keep(locked) {
    this.locked = locked;
    this.lock.setAttribute("aria-pressed", locked);
  }
}
