// What the page says in words: a polite line for screen readers, and errors that everyone sees.

const status = document.getElementById("status");
const error = document.getElementById("error");
const dismiss = document.getElementById("dismiss");
dismiss.addEventListener("click", clearError);

/** Tell a screen reader, without interrupting it. */
export function announce(text) {
  status.textContent = text;
}

/** Show an error until the next action or until it is dismissed. */
export function showError(text) {
  error.textContent = text;
  dismiss.hidden = false;
}

export function clearError() {
  error.textContent = "";
  dismiss.hidden = true;
}
