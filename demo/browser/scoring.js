// The released network on ONNX Runtime, and what `utils.models` makes of its two outputs.

/** Return the probability of PNEUMONIA and the last feature map of an image at the network's size. */
export async function run({ runtime, session, facts }, { pixels, channels }) {
  const side = facts.image_size;
  const values = new Float32Array(3 * side * side);
  for (let i = 0; i < values.length; i += 1) values[i] = pixels[channels === 3 ? i : Math.trunc(i / 3)];
  const tensor = new runtime.Tensor("float32", values, [1, side, side, 3]);
  const { probabilities, features } = await session.run({ [facts.input]: tensor });
  return { probability: probabilities.data[facts.positive], features };
}

/** Return the class activation map, {heat, rows, columns}: what each place adds to the class score. */
export function mapClass({ facts, arrays }, { data, dims: [, rows, columns, channels] }, label) {
  const weights = arrays.class_weights;
  const classes = facts.classes.length;
  const heat = new Float32Array(rows * columns);
  for (let place = 0; place < heat.length; place += 1) {
    let sum = 0;
    for (let channel = 0; channel < channels; channel += 1) {
      sum += data[place * channels + channel] * weights[channel * classes + label];
    }
    heat[place] = Math.max(sum / heat.length, 0);
  }
  return { heat, rows, columns };
}

/** Enlarge a map to a square, bilinearly between the centers of its cells. */
export function enlarge({ heat, rows, columns }, side) {
  const between = (place, cells) => {
    const at = Math.min(Math.max(((place + 0.5) * cells) / side - 0.5, 0), cells - 1);
    const first = Math.min(Math.floor(at), Math.max(cells - 2, 0));
    return [first, Math.min(first + 1, cells - 1), at - first];
  };
  return Float32Array.from({ length: side * side }, (_, place) => {
    const [top, bottom, down] = between(Math.floor(place / side), rows);
    const [left, right, across] = between(place % side, columns);
    const mix = (row) => heat[row * columns + left] * (1 - across) + heat[row * columns + right] * across;
    return mix(top) * (1 - down) + mix(bottom) * down;
  });
}

/** Divide the logit of a probability by the temperature. */
export function calibrate(probability, temperature) {
  return 1 / (1 + Math.exp(-Math.log(probability / (1 - probability)) / temperature));
}
