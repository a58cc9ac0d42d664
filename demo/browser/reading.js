// Reading an image file as `make predict` does, or refusing it. PNG is decoded here, because a
// canvas changes pixels that are partly transparent, and some browsers change all of them.

const MARKS = [
  [0, "\x89PNG\r\n\x1a\n", "PNG"], [0, "\xff\xd8\xff", "JPEG"], [0, "BM", "BMP"],
  [0, "GIF87a", "GIF"], [0, "GIF89a", "GIF"], [8, "WEBP", "WEBP"], [0, "II*\0", "TIFF"],
  [0, "MM\0*", "TIFF"], [0, "II+\0", "TIFF"], [0, "MM\0+", "TIFF"], [128, "DICM", "DICOM"],
];
const SAMPLES = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 }; // of a pixel, by PNG's type of color
const DEPTHS = { 0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16] }; // likewise
const PASSES = [ // of an interlaced PNG: first column and row, steps
  [0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2],
];

/** An image that is not answered; its message says why, and what helps. */
export class Refusal extends Error {}

const text = (bytes, start, end) => String.fromCharCode(...bytes.subarray(start, end));
const view = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const elsewhere = (reason) => new Refusal(`${reason}: score it with make predict.`);
const damaged = (kind) => elsewhere(
  `This browser cannot decode it: the ${kind} image may be damaged or cut off`);

/**
 * Read a file as {width, height, channels, pixels, remarks}: 8 bits, gray or RGB, upright, on white.
 *
 * `words` are those of the reader in Python; `words.max_pixels` is its limit.
 */
export async function readImage(file, words) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const kind = MARKS.find(([at, mark]) => text(bytes, at, at + mark.length) === mark)?.[2];
  if (!kind) throw elsewhere("Its content is no PNG, JPEG, BMP, GIF or WEBP image");
  if (kind === "TIFF" || kind === "DICOM") throw elsewhere(`Browsers do not read ${kind} files`);
  const checkSize = (width, height) => {
    if (width * height > words.max_pixels) {
      throw new Refusal(words.too_large.replace("{size}", `${width} x ${height}`));
    }
  };
  try {
    if (kind === "PNG") return await readPng(bytes, words, checkSize);
    return await readWithBrowser(file, bytes, kind, words, checkSize);
  } catch (error) {
    throw error instanceof Refusal ? error : damaged(kind);
  }
}

// ---- PNG

async function readPng(bytes, words, checkSize) {
  const chunks = listChunks(bytes);
  const find = (kind) => chunks.find((chunk) => chunk.kind === kind)?.data;
  const header = view(find("IHDR"));
  const [width, height] = [header.getUint32(0), header.getUint32(4)];
  const [depth, color, interlaced] = [8, 9, 12].map((place) => header.getUint8(place));
  checkSize(width, height);
  if (!(width * height && DEPTHS[color]?.includes(depth))) throw damaged("PNG");
  if (depth === 16) throw elsewhere("It has 16 bits per channel, and this page reads 8");
  const parts = chunks.filter((chunk) => chunk.kind === "IDAT").map((chunk) => chunk.data);
  const layout = { width, height, depth, samples: SAMPLES[color] };
  const passes = interlaced ? PASSES : [[0, 0, 1, 1]];
  const samples = unpack(await inflate(parts, countBytes(layout, passes)), layout, passes);
  const layers = colorPng(samples, { depth, color, palette: find("PLTE"), clear: find("tRNS") });
  const remarks = [];
  const first = chunks.find(({ kind }) => kind === "fcTL" || kind === "IDAT").kind;
  // An image that is shown where nothing moves may stand before the frames.
  const frames = find("acTL") ? view(find("acTL")).getUint32(0) + (first === "IDAT" ? 1 : 0) : 1;
  if (frames > 1) remarks.push(words.frames.replace("{frames}", frames));
  const xmp = chunks.filter(({ kind, data }) => kind === "iTXt" && text(data, 0, 3) === "XML");
  const exif = find("eXIf");
  const turned = turn({ width, height, ...layers },
    (exif && findOrientation(exif)) ?? findInXmp(xmp[0]?.data), remarks, words);
  const image = layOnWhite(turned, remarks, words);
  if (color === 0 && depth === 1) remarks.push(words.one_bit);
  return { ...image, remarks };
}

function listChunks(bytes) {
  const chunks = [];
  for (let at = 8; at + 8 <= bytes.length;) {
    const length = view(bytes).getUint32(at);
    chunks.push({ kind: text(bytes, at + 4, at + 8), data: bytes.subarray(at + 8, at + 8 + length) });
    at += 12 + length;
  }
  return chunks;
}

const lineBytes = ({ depth, samples }, width) => Math.ceil((width * depth * samples) / 8);
const passSize = ({ width, height }, [x, y, dx, dy]) =>
  [Math.ceil((width - x) / dx), Math.ceil((height - y) / dy)];

function countBytes(layout, passes) {
  return passes.map((pass) => passSize(layout, pass))
    .reduce((sum, [width, height]) => sum + (width && height * (1 + lineBytes(layout, width))), 0);
}

/** Return the first `length` bytes of compressed parts; more is not unfolded. */
async function inflate(parts, length) {
  const content = new Uint8Array(length);
  const reader = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  let at = 0;
  while (at < length) {
    const { done, value } = await reader.read();
    if (done) throw damaged("PNG");
    content.set(value.subarray(0, length - at), at);
    at += value.length;
  }
  reader.cancel().catch(() => {});
  return content;
}

/** Return the samples of all pixels, one byte each and not scaled. */
function unpack(content, layout, passes) {
  const { width, height, depth, samples } = layout;
  const unpacked = new Uint8Array(width * height * samples);
  const step = Math.max((depth * samples) >> 3, 1);
  let at = 0;
  for (const pass of passes) {
    const [columns, rows] = passSize(layout, pass);
    const length = lineBytes(layout, columns);
    let above = new Uint8Array(length);
    for (let row = 0; columns && row < rows; row += 1) {
      const line = content.subarray(at + 1, at + 1 + length);
      unfilter(content[at], line, above, step);
      let to = ((pass[1] + row * pass[3]) * width + pass[0]) * samples;
      for (let column = 0; column < columns; column += 1, to += pass[2] * samples) {
        for (let sample = 0; sample < samples; sample += 1) {
          const place = column * samples + sample;
          const bit = place * depth;
          unpacked[to + sample] = depth === 8 ? line[place]
            : (line[bit >> 3] >> (8 - depth - (bit & 7))) & ((1 << depth) - 1);
        }
      }
      above = line;
      at += 1 + length;
    }
  }
  return unpacked;
}

function unfilter(filter, line, above, step) {
  if (filter > 4) throw damaged("PNG");
  for (let place = 0; filter && place < line.length; place += 1) {
    const left = place < step ? 0 : line[place - step];
    const corner = place < step ? 0 : above[place - step];
    if (filter === 1) line[place] += left;
    else if (filter === 2) line[place] += above[place];
    else if (filter === 3) line[place] += (left + above[place]) >> 1;
    else line[place] += predict(left, above[place], corner);
  }
}

function predict(left, above, corner) {
  const [byLeft, byAbove] = [Math.abs(above - corner), Math.abs(left - corner)];
  const byCorner = Math.abs(left + above - 2 * corner);
  if (byLeft <= byAbove && byLeft <= byCorner) return left;
  return byAbove <= byCorner ? above : corner;
}

/** Turn samples into gray or RGB, and alpha where something may be transparent. */
function colorPng(samples, { depth, color, palette, clear }) {
  const scale = color === 3 ? 1 : 255 / ((1 << depth) - 1);
  const count = samples.length / SAMPLES[color];
  const channels = color === 0 || color === 4 ? 1 : 3;
  const pixels = new Uint8Array(count * channels);
  const alpha = color === 4 || color === 6 || clear ? new Uint8Array(count).fill(255) : null;
  // What is clear in an image without alpha: a value of 16 bits for each channel.
  const key = clear && Array.from({ length: clear.length >> 1 }, (_, i) => view(clear).getUint16(2 * i));
  for (let i = 0; i < count; i += 1) {
    const at = i * SAMPLES[color];
    for (let channel = 0; channel < channels; channel += 1) {
      pixels[i * channels + channel] =
        color === 3 ? palette[3 * samples[at] + channel] : samples[at + channel] * scale;
    }
    if (color === 4 || color === 6) alpha[i] = samples[at + channels];
    else if (color === 3 && clear) alpha[i] = clear[samples[at]] ?? 255;
    else if (clear && key.every((value, channel) => value === samples[at + channel])) alpha[i] = 0;
  }
  return { channels, pixels, alpha };
}

/** Lay an image on white with Pillow's integers (`Image.alpha_composite`). */
function layOnWhite({ width, height, channels, pixels, alpha }, remarks, words) {
  if (alpha?.some((value) => value < 255)) {
    remarks.push(words.on_white);
    for (let place = 0; place < pixels.length; place += 1) {
      const share = alpha[Math.trunc(place / channels)];
      const sum = 128 * (pixels[place] * share + 255 * (255 - share) + 128);
      pixels[place] = share ? (((sum >> 8) + sum) >> 8) >> 7 : 255;
    }
  }
  return { width, height, channels, pixels };
}

// ---- What the browser decodes

async function readWithBrowser(file, bytes, kind, words, checkSize) {
  const remarks = [];
  let orientation = null;
  if (kind === "JPEG") {
    const found = describeJpeg(bytes);
    checkSize(found.width, found.height);
    if (found.channels > 3) throw elsewhere("Browsers do not read CMYK colors as Pillow does");
    if (isTurned(found.exif)) remarks.push(words.turned); // which the browser does
    else orientation = found.exif ? null : found.xmp;
  } else if (kind === "GIF") {
    checkSize(view(bytes).getUint16(6, true), view(bytes).getUint16(8, true));
  } else if (kind === "WEBP" && isWebpTurned(bytes)) {
    throw elsewhere("Not every browser heeds the orientation tag of a WEBP image");
  }
  checkCanvas();
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  const { width, height } = bitmap;
  checkSize(width, height);
  const context = draw(width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  const pixels = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i += 1) {
    for (let channel = 0; channel < 3; channel += 1) pixels[3 * i + channel] = data[4 * i + channel];
  }
  return { ...turn({ width, height, channels: 3, pixels }, orientation, remarks, words), remarks };
}

/** Return the context of a white canvas. */
function draw(width, height) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  return context;
}

/** Refuse where a protection against fingerprinting changes what a page reads from a canvas. */
function checkCanvas() {
  const context = draw(64, 64);
  const drawn = context.createImageData(64, 64);
  drawn.data.forEach((_, place) => { drawn.data[place] = place % 4 === 3 ? 255 : (37 * place) & 255; });
  context.putImageData(drawn, 0, 0);
  const read = context.getImageData(0, 0, 64, 64).data;
  if (read.some((value, place) => value !== drawn.data[place])) {
    throw new Refusal("This browser changes the pixels that a page reads, against fingerprinting, so " +
      "that the answer would be another one. Take a PNG, or score it with make predict.");
  }
}

/** Return size, channels and orientation of a JPEG, from its segments. */
function describeJpeg(bytes) {
  const found = { exif: null, xmp: null };
  for (let at = 2; at + 4 <= bytes.length;) {
    if (bytes[at] !== 0xff) break;
    const marker = bytes[at + 1];
    if (marker === 0xff) { at += 1; continue; } // a filling byte
    const length = view(bytes).getUint16(at + 2);
    const segment = bytes.subarray(at + 4, at + 2 + length);
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      const [height, width] = [1, 3].map((place) => view(segment).getUint16(place));
      return { ...found, width, height, channels: segment[5] };
    }
    if (marker === 0xe1 && text(segment, 0, 6) === "Exif\0\0") {
      found.exif ??= findOrientation(skipName(segment));
    } else if (marker === 0xe1) found.xmp ??= findInXmp(segment);
    at += 2 + length;
  }
  throw damaged("JPEG");
}

function isWebpTurned(bytes) {
  for (let at = 12; at + 8 <= bytes.length;) {
    const length = view(bytes).getUint32(at + 4, true);
    const [kind, data] = [text(bytes, at, at + 4), bytes.subarray(at + 8, at + 8 + length)];
    if (kind === "EXIF" && isTurned(findOrientation(skipName(data)))) return true;
    if (kind === "XMP " && isTurned(findInXmp(data))) return true;
    at += 8 + length + (length & 1);
  }
  return false;
}

// ---- Orientation

const isTurned = (orientation) => orientation >= 2 && orientation <= 8;
const skipName = (exif) => (text(exif, 0, 6) === "Exif\0\0" ? exif.subarray(6) : exif);

/** Return the orientation tag of Exif data, or null. */
function findOrientation(exif) {
  try {
    const data = view(exif);
    const little = text(exif, 0, 2) === "II";
    const start = data.getUint32(4, little);
    for (let entry = 0; entry < data.getUint16(start, little); entry += 1) {
      const at = start + 2 + 12 * entry;
      if (data.getUint16(at, little) === 0x0112) return data.getUint16(at + 8, little);
    }
  } catch { /* damaged metadata are none */ }
  return null;
}

function findInXmp(data) {
  const found = data && new TextDecoder("latin1").decode(data).match(/tiff:Orientation(?:="|>)([0-9])/);
  return found ? Number(found[1]) : null;
}

/** Turn an image, and its alpha where it has one, as the tag says. */
function turn(image, orientation, remarks, words) {
  if (!isTurned(orientation)) return image;
  remarks.push(words.turned);
  const { width: w, height: h, channels } = image;
  const [width, height] = orientation < 5 ? [w, h] : [h, w];
  const source = [
    (x, y) => [w - 1 - x, y], (x, y) => [w - 1 - x, h - 1 - y], (x, y) => [x, h - 1 - y],
    (x, y) => [y, x], (x, y) => [y, h - 1 - x], (x, y) => [w - 1 - y, h - 1 - x],
    (x, y) => [w - 1 - y, x],
  ][orientation - 2];
  const turnLayer = (layer, size) => {
    const turned = new Uint8Array(layer.length);
    for (let y = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1) {
        const [column, row] = source(x, y);
        for (let channel = 0; channel < size; channel += 1) {
          turned[(y * width + x) * size + channel] = layer[(row * w + column) * size + channel];
        }
      }
    }
    return turned;
  };
  return {
    width, height, channels, pixels: turnLayer(image.pixels, channels),
    alpha: image.alpha && turnLayer(image.alpha, 1),
  };
}
