// The page: what it shows, and how it is used. Who answers is told to `startPage`.

const element = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)}%`;
const asSentence = (parts) => {
  const text = parts.join("; ");
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
};
let latest = 0; // answers to earlier images that arrive late are not shown

/** Show a text, an empty one as none. */
export function show(id, text) {
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
  const map = answer.explained;
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
  const before = `probability ${answer.probability.toFixed(4)}, threshold ${answer.threshold.toFixed(4)}`;
  show("words", `Probability of PNEUMONIA: ${percent(share)}` + (answer.is_own
    ? ", as your model gives it; what it is worth is not known here."
    : ", after temperature scaling on validation images. It is not a frequency: of the images with this " +
      "probability, a quite different proportion may show pneumonia (see the calibration in the model card)."));
  show("threshold",
    `From ${percent(answer.calibrated_threshold)} on, the mark on the bar, the model predicts PNEUMONIA. ` +
    (answer.is_own
      ? "This threshold is assumed, and was not chosen on any image."
      : `The threshold was not chosen on the test set. Before scaling: ${before}.`));
  element("image").src = answer.image;
  element("heat").src = answer.heat_map;
  show("explained", `${map} for ${answer.label}`);
  show("maximum", `${answer.heat_maximum.toPrecision(3)} in units of the class score`);
  show("height", answer.heat_maximum > 0
    ? "The map is scaled to its own maximum. It does not show where a disease is, and is weak evidence of " +
      "what the model used."
    : "The map is zero everywhere: nothing in the explained layer is evidence for this label.");
  show("model", answer.model);
  show("provenance", answer.provenance);
  show("time", `${answer.milliseconds} ms`);
  element("answer").hidden = false;
  element("label").focus();
}

function showMap() {
  const shown = element("mapped").checked;
  element("map").hidden = !shown;
  element("heat").hidden = !shown;
  element("heat").style.opacity = element("opacity").value / 100;
}

/**
 * Start the page.
 *
 * `predict` takes a file and returns a promise of the answer as `describe_answer` in Python gives it;
 * the message of an error that it throws is shown.
 */
export function startPage(predict) {
  const ask = async (image) => {
    latest += 1;
    const number = latest;
    show("status", "The model is running …");
    element("error").hidden = true;
    try {
      const answer = await predict(await image);
      if (number === latest) showAnswer(answer);
    } catch (error) {
      if (number === latest) showError(error.message);
    }
  };
  const askSample = async (address) => {
    try {
      const response = await fetch(address);
      if (response.ok) return await response.blob();
    } catch { /* said below */ }
    throw new Error("The sample could not be fetched.");
  };
  const drop = element("drop");
  element("form").addEventListener("submit", (event) => event.preventDefault());
  element("file").addEventListener("change", (event) => {
    if (event.target.files.length) ask(event.target.files[0]);
    event.target.value = ""; // the same file can be chosen again
  });
  for (const name of ["dragenter", "dragover"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  for (const name of ["dragleave", "drop"]) {
    drop.addEventListener(name, () => drop.classList.remove("over"));
  }
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) ask(event.dataTransfer.files[0]);
  });
  for (const button of document.querySelectorAll(".sample")) {
    button.addEventListener("click", () => ask(askSample(button.dataset.sample)));
  }
  element("mapped").addEventListener("change", showMap);
  element("opacity").addEventListener("input", showMap);
  showMap();
  element("stopped").hidden = true;
  element("main").hidden = false;
}
