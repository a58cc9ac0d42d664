// Resizing as Pillow does it (`Image.resize`, bilinear, 8 bits): the same integers, to the last bit.

const PRECISION = 32 - 8 - 2; // bits behind the point of a weight

/** Return for each pixel of a side where its source pixels begin, and their weights as integers. */
function weigh(source, target) {
  const scale = source / target;
  const support = Math.max(scale, 1); // the triangle is as wide as a pixel of the result
  return Array.from({ length: target }, (_, place) => {
    const center = (place + 0.5) * scale;
    const first = Math.max(Math.trunc(center - support + 0.5), 0);
    const end = Math.min(Math.trunc(center + support + 0.5), source);
    const shares = [];
    let sum = 0;
    for (let x = 0; x < end - first; x += 1) {
      const share = Math.max(1 - Math.abs((x + first - center + 0.5) * (1 / support)), 0);
      shares.push(share);
      sum += share;
    }
    return [first, Int32Array.from(shares, (share) => 0.5 + (share / sum) * 2 ** PRECISION)];
  });
}

/** Resize along one side; `stride` is the way between neighbors on it, in bytes. */
function resizeSide(pixels, source, target, stride, lines, at) {
  const resized = new Uint8Array((pixels.length / source) * target);
  weigh(source, target).forEach(([first, weights], place) => {
    for (let line = 0; line < lines; line += 1) {
      const from = at(line, source) + first * stride;
      let sum = 1 << (PRECISION - 1);
      for (let x = 0; x < weights.length; x += 1) sum += pixels[from + x * stride] * weights[x];
      resized[at(line, target) + place * stride] = Math.min(sum >> PRECISION, 255);
    }
  });
  return resized;
}

/**
 * Return an image {width, height, channels, pixels} at another size, first across, then down.
 */
export function resize(image, width, height) {
  const { channels } = image;
  let { pixels } = image;
  if (image.width !== width) {
    pixels = resizeSide(pixels, image.width, width, channels, image.height * channels,
      (line, side) => Math.trunc(line / channels) * side * channels + (line % channels));
  }
  if (image.height !== height) {
    pixels = resizeSide(pixels, image.height, height, width * channels, width * channels,
      (line) => line);
  }
  return { width, height, channels, pixels };
}
