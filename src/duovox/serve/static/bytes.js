// base64 of the API -> bytes, and the pictures of the API -> levels that can be drawn.

export function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** A picture of the API -> {rows, columns, levels}: one byte each, the lowest band first. */
export function readPicture({ rows, columns, data }) {
  return { rows, columns, levels: fromBase64(data) };
}
