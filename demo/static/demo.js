"use strict";

const element = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)}%`;
const asSentence = (parts) => {
  const text = parts.join("; ");
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
};
let latest = 0; // answers to earlier images that arrive late are not shown

function show(id, text) {
  element(id).textContent = text;
}

function showError(message) {
  show("status", "");
  element("answer").hidden = true;
  show("error", message);
  element("error").hidden = false;
}

function showAnswer(answer) {
  const share = answer.calibrated_probability;
  show("status", "");
  element("error").hidden = true;
  show("label", answer.strange ? "No meaningful prediction" : `The model predicts ${answer.label}`);
  show("warnings", asSentence(answer.warnings));
  element("warnings").hidden = answer.warnings.length === 0;
  show("remarks", `How the image was read: ${answer.remarks.join("; ")}.`);
  element("remarks").hidden = answer.remarks.length === 0;
  element("share").className = answer.label.toLowerCase();
  element("share").style.width = `${100 * share}%`;
  element("mark").style.left = `${100 * answer.calibrated_threshold}%`;
  element("bar").setAttribute("aria-label",
    `Probability of PNEUMONIA ${percent(share)}, threshold ${percent(answer.calibrated_threshold)}`);
  show("words",
    `Probability of PNEUMONIA: ${percent(share)}, after temperature scaling on validation images. It is not a ` +
    "frequency: of the images with this probability, a quite different proportion may show pneumonia " +
    "(see the calibration in the model card).");
  show("threshold",
    `From ${percent(answer.calibrated_threshold)} on, the mark on the bar, the model predicts PNEUMONIA. The ` +
    `threshold was chosen on held-out patients, not on the test set. Before scaling: ` +
    `probability ${answer.probability.toFixed(4)}, threshold ${answer.threshold.toFixed(4)}.`);
  element("image").src = answer.image;
  element("under").src = answer.image;
  element("heat").src = answer.heat_map;
  show("explained", `Grad-CAM for ${answer.label}`);
  show("height", answer.heat_maximum > 0
    ? `The map is scaled to its own maximum, ${answer.heat_maximum.toPrecision(3)} in units of the class ` +
      "score. It does not show where a disease is, and is weak evidence of what the model used."
    : "The map is zero everywhere: nothing in the explained layer is evidence for this label.");
  show("model", answer.model);
  show("provenance", answer.provenance);
  show("time", `${answer.milliseconds} ms`);
  element("answer").hidden = false;
  element("label").focus();
}

async function ask(image) {
  const number = ++latest;
  const limits = element("form").dataset;
  // A server that refuses a body while it is still being sent is not heard by every browser.
  if (image.size > limits.megabytes * 1e6) return showError(limits.tooLarge);
  show("status", "The model is running …");
  element("error").hidden = true;
  const form = new FormData();
  form.append("image", image, "image");
  try {
    const response = await fetch("/api/predict", { method: "POST", body: form });
    const answer = await response.json();
    if (number !== latest) return;
    if (response.ok) showAnswer(answer);
    else showError(answer.error);
  } catch {
    if (number === latest) showError("The server gave no answer. Is it still running?");
  }
}

async function askSample(address) {
  const response = await fetch(address);
  await ask(await response.blob());
}

element("form").addEventListener("submit", (event) => event.preventDefault());
element("file").addEventListener("change", (event) => {
  if (event.target.files.length) ask(event.target.files[0]);
  event.target.value = ""; // the same file can be chosen again
});
for (const name of ["dragenter", "dragover"]) {
  element("drop").addEventListener(name, (event) => {
    event.preventDefault();
    element("drop").classList.add("over");
  });
}
for (const name of ["dragleave", "drop"]) {
  element("drop").addEventListener(name, () => element("drop").classList.remove("over"));
}
element("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length) ask(event.dataTransfer.files[0]);
});
for (const button of document.querySelectorAll(".sample")) {
  button.addEventListener("click", () => {
    askSample(button.dataset.sample).catch(() => showError("The sample could not be fetched."));
  });
}
const setOpacity = () => { element("heat").style.opacity = element("opacity").value / 100; };
element("opacity").addEventListener("input", setOpacity);
setOpacity();
