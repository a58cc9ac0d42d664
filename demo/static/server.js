// The demo of `make demo`: its server answers.

import { startPage } from "./demo.js";

const limits = document.getElementById("form").dataset;

startPage(async (image) => {
  // A server that refuses a body while it is still being sent is not heard by every browser.
  if (image.size > limits.megabytes * 1e6) throw new Error(limits.tooLarge);
  const form = new FormData();
  form.append("image", image, "image");
  let response, answer;
  try {
    response = await fetch("/api/predict", { method: "POST", body: form });
    answer = await response.json();
  } catch {
    throw new Error("The server gave no answer. Is it still running?");
  }
  if (!response.ok) throw new Error(answer.error);
  return answer;
});
