// The page of the site: this browser answers. No image leaves it.

import { show, startPage } from "./demo.js";
import { average, describe, judge } from "./guard.js";
import { readImage } from "./reading.js";
import { resize } from "./resizing.js";
import { calibrate, enlarge, mapClass, run } from "./scoring.js";

const folder = new URL(".", import.meta.url);
const opened = {}; // promises of what is loaded once
let turn = Promise.resolve(); // one image at a time

async function fetchFile(name) {
  const response = await fetch(new URL(name, folder));
  if (!response.ok) throw new Error(`${name}: ${response.status}`);
  return response;
}

/** Load something once; after a failure the next image tries again. */
async function once(name, load) {
  opened[name] ??= load();
  try {
    return await opened[name];
  } catch (error) {
    delete opened[name];
    throw new Error(`The network could not be loaded (${error.message}). Is the server of this page still there?`);
  }
}

async function openNetwork(facts) {
  show("status", `Loading the network, ${facts.megabytes} MB the first time …`);
  const fetchBytes = async (name) => (await fetchFile(name)).arrayBuffer();
  const [values, network, wasm, runtime] = await Promise.all([
    ...[facts.values, facts.network, facts.wasm].map(fetchBytes), import(new URL(facts.runtime, folder)),
  ]);
  runtime.env.wasm.numThreads = 1; // more need headers that a static site does not send
  runtime.env.wasm.wasmBinary = wasm;
  const options = { executionProviders: ["wasm"] };
  const session = await runtime.InferenceSession.create(new Uint8Array(network), options);
  const arrays = Object.fromEntries(Object.entries(facts.arrays).map(
    ([name, { start, length }]) => [name, new Float32Array(values, start, length)]));
  return { facts, runtime, session, arrays };
}

function toAddress(pixels, side) {
  const canvas = Object.assign(document.createElement("canvas"), { width: side, height: side });
  canvas.getContext("2d").putImageData(new ImageData(pixels, side, side), 0, 0);
  return canvas.toDataURL();
}

/** Draw an image of one or three channels. */
function drawImage({ width, pixels, channels }) {
  return toAddress(Uint8ClampedArray.from({ length: 4 * width * width }, (_, place) => {
    const [pixel, channel] = [Math.trunc(place / 4), place % 4];
    return channel === 3 ? 255 : pixels[pixel * channels + (channels === 3 ? channel : 0)];
  }), width);
}

/** Color a map as `color_heat` in Python does. */
function drawHeat(heat, maximum, side) {
  return toAddress(Uint8ClampedArray.from({ length: 4 * heat.length }, (_, place) => {
    const share = maximum > 0 ? heat[Math.trunc(place / 4)] / maximum : 0;
    return [255, 170 * (1 - share), 0, 255 * share][place % 4];
  }), side);
}

async function answer(file) {
  const start = performance.now();
  const facts = await once("facts", async () => (await fetchFile("facts.json")).json());
  const read = await readImage(file, facts.words);
  const network = await once("network", () => openNetwork(facts));
  show("status", "The model is running …");
  const seen = resize(read, facts.image_size, facts.image_size);
  const { probability, features } = await run(network, seen);
  const label = probability >= facts.threshold ? facts.positive : 1 - facts.positive;
  const heat = enlarge(mapClass(network, features, label), facts.image_size);
  const maximum = heat.reduce((largest, value) => Math.max(largest, value), 0);
  const found = judge(network, average(features), seen);
  return {
    label: facts.classes[label],
    probability,
    threshold: facts.threshold,
    calibrated_probability: calibrate(probability, facts.temperature),
    calibrated_threshold: facts.calibrated_threshold,
    strange: found.some((each) => facts.guard.meaningless.includes(each)),
    warnings: describe(network, found),
    remarks: read.remarks,
    model: facts.model,
    provenance: facts.provenance,
    explained: facts.explained,
    image: drawImage(seen),
    heat_map: drawHeat(heat, maximum, facts.image_size),
    heat_maximum: maximum,
    milliseconds: Math.round(performance.now() - start),
  };
}

startPage((file) => {
  const answered = turn.then(() => answer(file));
  turn = answered.catch(() => {});
  return answered;
});
