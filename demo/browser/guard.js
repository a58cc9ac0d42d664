// The guard of `utils.models.guard`: what it finds in images that are no upright chest radiographs.

/** Return the mean over places of a feature map, (channels). */
export function average({ data, dims: [, rows, columns, channels] }) {
  const mean = new Float32Array(channels);
  data.forEach((value, place) => { mean[place % channels] += value / (rows * columns); });
  return mean;
}

/** Return what is found in an image, as `Guard.judge` does, by its features and its pixels. */
export function judge({ facts: { guard }, arrays }, features, image) {
  if (deviation(image) < guard.constant_limit) return [guard.constant];
  const found = distance(features, arrays) > guard.limit ? [guard.foreign] : [];
  const poses = softmax(Array.from(arrays.bias, (bias, pose) => features.reduce(
    (sum, value, feature) => sum + value * arrays.weights[feature * arrays.bias.length + pose], bias)));
  const named = poses.indexOf(Math.max(...poses.slice(1)), 1);
  return poses[0] < guard.pose_limit ? [...found, guard.poses[named]] : found;
}

/** Return what is said of an image, as `guard.describe` does. */
export function describe({ facts: { guard } }, found) {
  const foreign = found.includes(guard.foreign);
  return found.map((each, place) => (foreign && place ? guard.if_one : "") + guard.remarks[each]);
}

/** Return 1 less the largest similarity to a training image. */
function distance(features, { directions, references }) {
  const length = Math.hypot(...features) || 1;
  const count = directions.length / features.length;
  const projected = Float32Array.from({ length: count }, (_, row) => features.reduce(
    (sum, value, feature) => sum + (value / length) * directions[row * features.length + feature], 0));
  let largest = -Infinity;
  for (let start = 0; start < references.length; start += count) {
    const similarity = projected.reduce((sum, value, place) => sum + value * references[start + place], 0);
    largest = Math.max(largest, similarity);
  }
  return 1 - largest;
}

function softmax(scores) {
  const largest = Math.max(...scores);
  const powers = scores.map((score) => Math.exp(score - largest));
  return powers.map((power) => power / powers.reduce((sum, each) => sum + each, 0));
}

/** Return the standard deviation of an image's gray. */
function deviation({ pixels, channels }) {
  const gray = Float64Array.from({ length: pixels.length / channels }, (_, i) => {
    const pixel = pixels.subarray(i * channels, (i + 1) * channels);
    return pixel.reduce((sum, value) => sum + value, 0) / channels;
  });
  const mean = gray.reduce((sum, value) => sum + value, 0) / gray.length;
  return Math.sqrt(gray.reduce((sum, value) => sum + (value - mean) ** 2, 0) / gray.length);
}
