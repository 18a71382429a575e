// Asks the person for the server's token. Takes the server's words from `api`, gives it the token, or null.

let asked = null; // the question under way: two requests refused together ask once

/** Show the dialog; resolves to the token, or to null where the person or `signal` gives up. */
export function askForToken(message, signal) {
  asked ??= ask(message, signal).finally(() => (asked = null));
  return asked;
}

function ask(message, signal) {
  const dialog = document.getElementById("token-dialog");
  const form = dialog.querySelector("form");
  const input = document.getElementById("token");
  document.getElementById("token-message").textContent = message;
  input.value = "";
  dialog.returnValue = "";
  form.onsubmit = (event) => {
    event.preventDefault();
    dialog.close(input.value.trim());
  };
  form.querySelector("[type=button]").onclick = () => dialog.close("");
  signal?.addEventListener("abort", () => dialog.close(""), { once: true });
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      input.value = "";
      resolve(dialog.returnValue || null);
    }, { once: true });
  });
}
