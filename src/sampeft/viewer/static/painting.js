// A slice of a volume in, pixels (as 32-bit ABGR) out: grey levels of an image, colours or outlines of labels.

import { walk } from "/volume.js";

const OPAQUE = 0xff000000;

/** A table of grey levels for each raw value of a type with 8 or 16 bits; null for others. */
export function greyTable(volume, { low, high }) {
  const bytes = volume.data.BYTES_PER_ELEMENT;
  if (volume.rgb || bytes > 2 || volume.data instanceof Float32Array) return null;
  const table = new Uint8ClampedArray(bytes === 1 ? 256 : 65536);
  const signed = volume.data instanceof Int16Array || volume.data instanceof Int8Array;
  const scale = 255 / Math.max(high - low, 1e-9);
  for (let n = 0; n < table.length; n++) {
    const raw = signed && n >= table.length / 2 ? n - table.length : n;
    table[n] = (raw * volume.slope + volume.inter - low) * scale;
  }
  return table;
}

/** target: Uint32Array of width x height. table: of `greyTable`, or null. */
export function paintImage(volume, plane, index, { low, high }, table, target) {
  const { width, height, start, alongColumns, alongRows } = walk(volume, plane, index);
  const data = volume.data;
  const mask = table ? table.length - 1 : 0;
  const scale = (255 * volume.slope) / Math.max(high - low, 1e-9);
  const shift = ((volume.inter - low) * 255) / Math.max(high - low, 1e-9);
  for (let row = 0, n = 0; row < height; row++) {
    let at = start + row * alongRows;
    for (let column = 0; column < width; column++, n++, at += alongColumns) {
      if (volume.rgb) {
        target[n] = OPAQUE | (data[3 * at + 2] << 16) | (data[3 * at + 1] << 8) | data[3 * at];
        continue;
      }
      let level;
      if (table) level = table[data[at] & mask];
      else {
        level = data[at] * scale + shift;
        level = level > 255 ? 255 : level > 0 ? level | 0 : 0;
      }
      target[n] = OPAQUE | (level << 16) | (level << 8) | level;
    }
  }
}

/** 32-bit colours by id. classes: with id and color; those hidden and the background are clear. */
export function palette(classes, hidden) {
  const table = new Uint32Array(Math.max(0, ...classes.map((c) => c.id)) + 1);
  for (const { id, color, foreground, name } of classes)
    if (foreground && !hidden.has(name)) table[id] = (OPAQUE | (color[2] << 16) | (color[1] << 8) | color[0]) >>> 0;
  return table;
}

/** labels: a Volume of ids. outline: only the pixels at the edge of their class. */
export function paintLabels(labels, plane, index, colours, outline, target) {
  const { width, height, start, alongColumns, alongRows } = walk(labels, plane, index);
  const data = labels.data;
  for (let row = 0, n = 0; row < height; row++) {
    let at = start + row * alongRows;
    for (let column = 0; column < width; column++, n++, at += alongColumns) {
      const id = data[at];
      const found = colours[id] ?? 0;
      const inside =
        outline && found && column > 0 && column < width - 1 && row > 0 && row < height - 1 &&
        data[at - alongColumns] === id && data[at + alongColumns] === id &&
        data[at - alongRows] === id && data[at + alongRows] === id;
      target[n] = inside ? 0 : found;
    }
  }
}

/** Run lengths along the rows (outside, inside ...) to a Uint8Array of 0 and 1. */
export function maskOf({ size, counts }) {
  const mask = new Uint8Array(size[0] * size[1]);
  let at = 0;
  counts.forEach((count, n) => {
    if (n % 2) mask.fill(1, at, at + count);
    at += count;
  });
  return mask;
}
