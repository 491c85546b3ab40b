// What is looked at and how: an image, its label maps, window, opacity, hidden classes and the cursor. Panes draw it.

import { greyTable, palette } from "/painting.js";

export class Scene extends EventTarget {
  constructor() {
    super();
    this.opacity = 0.5;
    this.outline = false;
    this.hidden = new Set();
    this.source = "prediction";
    this.set(null);
  }

  /** image: a Volume or null. Label maps go; opacity and hidden classes stay. */
  set(image) {
    this.image = image;
    this.maps = {}; // prediction, truth: {volume, classes}
    this.cursor = image ? image.size.map((n) => n >> 1) : null;
    this.moved = false;
    this.window = image ? image.autoWindow : null;
    this.changed("image");
  }

  /** Put a label map onto the image. Raises when it is of another grid. */
  put(name, volume, classes) {
    if (!this.image.matches(volume))
      throw new Error(`the ${name} is of another grid than the image (${volume.size.join(" x ")}), so it is not shown`);
    this.maps[name] = { volume, classes };
    if (!this.moved) this.cursor = middle(volume) ?? this.cursor;
    this.changed("look");
  }

  changed(what) {
    if (what === "image" || what === "look") {
      this.table = this.image && greyTable(this.image, this.window);
      this.version = (this.version ?? 0) + 1;
      for (const map of Object.values(this.maps)) map.colours = palette(map.classes, this.hidden);
    }
    this.dispatchEvent(new Event(what));
  }

  setWindow(window) {
    this.window = window;
    this.changed("look");
  }

  toggle(name, shown) {
    if (shown) this.hidden.delete(name);
    else this.hidden.add(name);
    this.changed("look");
  }

  /** Which maps are drawn, and whether as outlines. source: prediction, truth or both. */
  layers(source = this.source) {
    const found = [];
    if (!this.maps[source]) source = this.maps.prediction && this.maps.truth ? source : this.maps.truth ? "truth" : "prediction";
    const both = source === "both" && this.maps.prediction && this.maps.truth;
    if (this.maps.prediction && source !== "truth") found.push({ ...this.maps.prediction, outline: this.outline });
    if (this.maps.truth && source !== "prediction") found.push({ ...this.maps.truth, outline: both ? true : this.outline, truth: both });
    return found;
  }

  moveTo(voxel) {
    this.moved = true;
    this.cursor = voxel.map((v, axis) => Math.min(Math.max(v, 0), this.image.size[axis] - 1));
    this.changed("cursor");
  }

  /** The class of a map at a voxel, or nothing. */
  classAt(name, voxel) {
    const map = this.maps[name];
    if (!map) return null;
    const id = map.volume.data[map.volume.offset(voxel)];
    return map.classes.find((c) => c.id === id)?.name ?? `id ${id}`;
  }
}

/** The middle of everything that is labelled, where there is anything. */
function middle({ data, size: [width, height, depth] }) {
  let [count, i, j, k] = [0, 0, 0, 0];
  for (let z = 0, at = 0; z < depth; z++)
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++, at++) {
        if (!data[at]) continue;
        count++;
        i += x;
        j += y;
        k += z;
      }
  return count ? [i, j, k].map((sum) => Math.round(sum / count)) : null;
}
