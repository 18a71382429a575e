// The normal noise of PyTorch: the same seed, the same clip. A Mersenne twister (Matsumoto and Nishimura 1998), of each number 24 bits, and
// sixteen of these at a time turned into normal ones (Box and Muller 1958).

const SIZE = 624;
const SHIFT = 397;
const GROUP = 16;

class Twister {
  #state = new Uint32Array(SIZE);
  #next = SIZE;

  /** Of the seed the lower 32 bits count, as in PyTorch. */
  constructor(seed) {
    const state = this.#state;
    state[0] = seed % 2 ** 32;
    for (let i = 1; i < SIZE; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  }

  /** The next number, 32 bits. */
  next() {
    if (this.#next === SIZE) this.#twist();
    let y = this.#state[this.#next++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  #twist() {
    const state = this.#state;
    for (let i = 0; i < SIZE; i++) {
      const y = (state[i] & 0x80000000) | (state[(i + 1) % SIZE] & 0x7fffffff);
      state[i] = state[(i + SHIFT) % SIZE] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.#next = 0;
  }
}

export class TorchNormal {
  #twister;

  constructor(seed) {
    this.#twister = new Twister(seed);
  }

  /** What torch.randn gives next: `count` numbers, at least sixteen. */
  draw(count) {
    const noise = Float32Array.from({ length: count }, () => this.#uniform());
    for (let start = 0; start + GROUP <= count; start += GROUP) boxMuller(noise.subarray(start, start + GROUP));
    if (count % GROUP) { // the last sixteen are drawn anew
      const last = noise.subarray(count - GROUP);
      last.set(Array.from(last, () => this.#uniform()));
      boxMuller(last);
    }
    return noise;
  }

  #uniform() {
    return (this.#twister.next() & 0xffffff) / 2 ** 24;
  }
}

/** Sixteen uniform numbers in [0, 1) -> sixteen normal ones, in place: eight radii, eight angles. */
function boxMuller(sixteen) {
  for (let i = 0; i < GROUP / 2; i++) {
    const radius = Math.sqrt(-2 * Math.log(1 - sixteen[i]));
    const angle = 2 * Math.PI * sixteen[i + GROUP / 2];
    sixteen[i] = radius * Math.cos(angle);
    sixteen[i + GROUP / 2] = radius * Math.sin(angle);
  }
}
