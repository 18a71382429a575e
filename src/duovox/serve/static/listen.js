// The section that listens: a file dropped or chosen, or one second recorded. Fills two cards: what the classifier hears in it, and
// what the generator says for that label with the settings and the seed of the page.

import { classify, generate } from "./api.js";
import { ClipCard } from "./clip.js";
import { megabytes, toWav } from "./decode.js";
import { announce } from "./notices.js";
import { unlock } from "./player.js";
import { microphoneProblem, record } from "./recorder.js";
import { verdict } from "./speak.js";
import { Task } from "./task.js";

const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");

/** The sound of a file as the server reads it, and what is heard in it: the file itself, or what the browser makes of it where the server
 *  does not read it or it is too large. */
async function classifyAny(file, { rate, limits }, signal, onWait) {
  let reason = `it has ${megabytes(file.size)}, the server takes ${megabytes(limits.upload_bytes)} at most`;
  if (file.size <= limits.upload_bytes) {
    try {
      return { sound: file, reply: await classify(file, signal, onWait) };
    } catch (error) {
      if (error.status !== 415) throw error;
      reason = error.message;
    }
  }
  const sound = await toWav(file, rate, limits.upload_seconds);
  signal.throwIfAborted();
  if (sound === null) throw new Error(`${file.name} cannot be heard: ${reason}, and this browser cannot decode it either.`);
  return { sound, reply: await classify(sound, signal, onWait) };
}

/** Let files be dropped on `zone`; a file dropped beside it does not replace the page. */
function acceptDrops(zone, take) {
  addEventListener("dragover", (event) => carriesFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => carriesFiles(event) && event.preventDefault());
  for (const kind of ["dragenter", "dragover"]) zone.addEventListener(kind, () => zone.classList.add("over"));
  zone.addEventListener("dragleave", (event) => zone.contains(event.relatedTarget) || zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    zone.classList.remove("over");
    if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  });
}

export function startListen(model, settings, seed) {
  const heard = new ClipCard(document.getElementById("heard"), model, "Your sound");
  const answered = new ClipCard(document.getElementById("answered"), model, "The same word, generated");
  const task = new Task(heard, answered);
  const button = document.getElementById("record");
  const input = document.getElementById("file");
  const drop = document.getElementById("drop");

  async function answer(label, signal, onWait) {
    const request = { label, seed: seed.value, ...settings.values() };
    const { clip } = await generate(request, signal, onWait);
    if (!signal.aborted) await answered.showGenerated(clip, `the model says ${label}`, `seed ${clip.seed} · ${verdict(clip.probabilities)}`);
  }

  /** Classify a file, show it, then let the generator say what was heard. */
  async function hear(file, name, signal, onWait) {
    const { sound, reply } = await classifyAny(file, model, signal, onWait);
    signal.throwIfAborted();
    const note = [`${reply.seconds.toFixed(2)} s`, verdict(reply.probabilities), ...reply.notes].join(" · ");
    await heard.showHeard(new Uint8Array(await sound.arrayBuffer()), reply, name, note);
    announce(`${name}: ${verdict(reply.probabilities)}`);
    await answer(reply.label, signal, onWait);
  }

  function take(file) {
    unlock();
    return task.run(`Listening to ${file.name}…`, (signal, onWait) => hear(file, file.name, signal, onWait));
  }

  function showRecording(text, level) {
    button.querySelector("span").textContent = text;
    button.classList.toggle("recording", level !== null);
    button.style.setProperty("--level", level ?? 0);
  }

  async function recordAndHear(signal, onWait) {
    showRecording("Get ready…", 0);
    const onStart = () => announce("Speak now");
    const onLevel = (level) => showRecording("Speak now", level);
    const blob = await record(model.seconds, signal, { onStart, onLevel }).finally(() => showRecording("Record one second", null));
    await hear(new File([blob], "recording.wav", { type: blob.type }), "your recording", signal, onWait);
  }

  acceptDrops(drop, take);
  input.addEventListener("change", async () => {
    if (input.files.length) await take(input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  });
  button.addEventListener("click", () => {
    unlock();
    task.run("Recording…", recordAndHear);
  });
  const problem = microphoneProblem();
  button.disabled = problem !== null;
  document.getElementById("record-note").textContent = problem ?? "";
  document.getElementById("record-note").hidden = problem === null;
}
