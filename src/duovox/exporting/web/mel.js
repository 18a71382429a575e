// Sound -> log-mel, as in the model's training. Takes samples at the model's rate and the mel's settings from the manifest.

/** Slaney's mel scale: linear below 1 kHz, logarithmic above. */
const toMel = (hertz) => (hertz < 1000 ? (hertz * 3) / 200 : 15 + (27 * Math.log(hertz / 1000)) / Math.log(6.4));
const toHertz = (mel) => (mel < 15 ? (mel * 200) / 3 : 1000 * Math.exp(((mel - 15) * Math.log(6.4)) / 27));

/** Triangular filters of unit area: for each mel {first, weights}, its weights from bin `first` on. */
export function filterbank({ sample_rate: rate, n_fft: size, n_mels: mels, fmin, fmax }) {
  const [low, high] = [toMel(fmin), toMel(fmax)];
  const edges = Array.from({ length: mels + 2 }, (_, i) => toHertz(low + ((high - low) * i) / (mels + 1)));
  return Array.from({ length: mels }, (_, m) => {
    const [left, middle, right] = edges.slice(m, m + 3);
    const height = 2 / (right - left);
    const weight = (bin) => {
      const hertz = (bin * rate) / size;
      return height * Math.max(0, Math.min((hertz - left) / (middle - left), (right - hertz) / (right - middle)));
    };
    const first = Math.ceil((left * size) / rate);
    const last = Math.min(Math.floor((right * size) / rate), size >> 1);
    return { first, weights: Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => weight(first + i)) };
  });
}

/** The Fourier transform of real and imaginary parts, in place; halves what is even, sums up what is odd. */
export function transform(real, imaginary) {
  const size = real.length;
  if (size === 1) return;
  if (size % 2) {
    sumUp(real, imaginary);
    return;
  }
  const half = size / 2;
  const parts = [real, imaginary].map((part) => [0, 1].map((odd) => Float64Array.from({ length: half }, (_, i) => part[2 * i + odd])));
  const [[evenReal, oddReal], [evenImaginary, oddImaginary]] = parts;
  transform(evenReal, evenImaginary);
  transform(oddReal, oddImaginary);
  for (let k = 0; k < half; k++) {
    const [cosine, sine] = [Math.cos((2 * Math.PI * k) / size), Math.sin((2 * Math.PI * k) / size)];
    const a = cosine * oddReal[k] + sine * oddImaginary[k];
    const b = cosine * oddImaginary[k] - sine * oddReal[k];
    real[k] = evenReal[k] + a;
    imaginary[k] = evenImaginary[k] + b;
    real[k + half] = evenReal[k] - a;
    imaginary[k + half] = evenImaginary[k] - b;
  }
}

function sumUp(real, imaginary) {
  const size = real.length;
  const [x, y] = [real.slice(), imaginary.slice()];
  for (let k = 0; k < size; k++) {
    real[k] = imaginary[k] = 0;
    for (let n = 0; n < size; n++) {
      const angle = (2 * Math.PI * ((k * n) % size)) / size;
      real[k] += x[n] * Math.cos(angle) + y[n] * Math.sin(angle);
      imaginary[k] += y[n] * Math.cos(angle) - x[n] * Math.sin(angle);
    }
  }
}

export class LogMel {
  constructor(mel) {
    this.mel = mel;
    this.filters = filterbank(mel);
    const left = (mel.n_fft - mel.win_length) >> 1;
    const inside = (n) => n >= 0 && n < mel.win_length;
    const hann = (n) => 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / mel.win_length);
    this.window = Float64Array.from({ length: mel.n_fft }, (_, i) => (inside(i - left) ? hann(i - left) : 0));
  }

  /** Samples (S,), padded with silence -> log-mel, n_mels rows of `frames`, the lowest band first. */
  of(wave) {
    const { n_fft: size, hop_length: hop, n_mels: mels, frames, floor } = this.mel;
    const last = (frames - 1) * hop - 1;
    const sample = (n) => wave[n < 0 ? -n : n > last ? 2 * last - n : n] ?? 0; // the ends are reflected
    const result = new Float32Array(mels * frames);
    for (let t = 0; t < frames; t++) {
      const real = this.window.map((weight, i) => weight * sample(t * hop - (size >> 1) + i));
      const imaginary = new Float64Array(size);
      transform(real, imaginary);
      const magnitude = (bin) => Math.sqrt(real[bin] ** 2 + imaginary[bin] ** 2 + 1e-12);
      this.filters.forEach(({ first, weights }, m) => {
        const sum = weights.reduce((total, weight, i) => total + weight * magnitude(first + i), 0);
        result[m * frames + t] = Math.log(Math.max(sum, floor));
      });
    }
    return result;
  }
}
