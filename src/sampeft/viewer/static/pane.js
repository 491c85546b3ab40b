// One plane of a scene on a canvas: drawing, zoom and pan, and what mouse, fingers and keys do there.

import { make } from "/dom.js";
import { paintImage, paintLabels } from "/painting.js";
import { pixelOf, slicePlace, voxelOf } from "/volume.js";

const STEP_PIXELS = 40; // of the wheel to the next slice; a notch of a mouse has some 100
const MOST_ZOOM = 40;

export class Pane {
  /** plane: of `Volume.plane`. source: which maps it shows, when not those of the scene. title: above the picture. */
  constructor(scene, plane, { source = null, title = null } = {}) {
    Object.assign(this, { scene, plane, source, zoom: 1, pan: [0, 0], tool: null, hover: null, key: null });
    const image = scene.image;
    this.width = image.size[plane.column];
    this.height = image.size[plane.row];
    this.slices = image.size[plane.slice];
    this.title = title ?? plane.name;
    this.canvas = make("canvas", { tabindex: 0, role: "img" });
    this.caption = make("figcaption");
    this.slider = make("input", { type: "range", min: 1, max: this.slices, "aria-label": `${this.title} slice` });
    this.slider.addEventListener("input", () => this.goTo(slicePlace(image, plane, this.slider.value - 1)));
    const letters = Object.entries(plane.letters ?? {}).map(([edge, letter]) =>
      make("span", { class: `letter ${edge}`, "aria-hidden": true }, letter),
    );
    this.figure = make("figure", { class: "pane" }, make("div", { class: "picture" }, this.canvas, ...letters), this.caption,
      this.slices > 1 ? this.slider : null);
    this.figure.pane = this;
    this.base = layer(this.width, this.height);
    this.overlay = layer(this.width, this.height);
    this.listen();
    this.say();
  }

  get index() {
    return this.scene.cursor[this.plane.slice];
  }

  /** The number of the slice, counted from 0 as the server counts. */
  get place() {
    return slicePlace(this.scene.image, this.plane, this.index);
  }

  goTo(index) {
    const cursor = [...this.scene.cursor];
    cursor[this.plane.slice] = index;
    this.scene.moveTo(cursor);
  }

  /** steps: forwards in the numbers of slices. */
  step(steps) {
    this.goTo(this.index + (this.plane.backwards[0] ? -steps : steps));
  }

  // --- where pixels of the slice lie on the canvas, in CSS pixels ---

  get frame() {
    const [across, down] = this.scene.image.flat ? [1, 1] : [this.plane.column, this.plane.row].map((a) => this.scene.image.spacing[a]);
    const { clientWidth, clientHeight } = this.canvas;
    const scale = this.zoom * Math.min(clientWidth / (this.width * across), clientHeight / (this.height * down));
    const [x, y] = [scale * across, scale * down];
    return { x, y, left: (clientWidth - this.width * x) / 2 + this.pan[0], top: (clientHeight - this.height * y) / 2 + this.pan[1] };
  }

  /** CSS pixels on the canvas of a place [column, row] of the slice; pixel n reaches from n to n + 1. */
  onCanvas([column, row]) {
    const { x, y, left, top } = this.frame;
    return [left + column * x, top + row * y];
  }

  /** [column, row], with fractions, under an event. */
  under(event) {
    const box = this.canvas.getBoundingClientRect();
    const { x, y, left, top } = this.frame;
    return [(event.clientX - box.left - left) / x, (event.clientY - box.top - top) / y];
  }

  inside([column, row]) {
    return column >= 0 && row >= 0 && column < this.width && row < this.height;
  }

  voxel([column, row]) {
    return voxelOf(this.scene.image, this.plane, this.index, Math.floor(column), Math.floor(row));
  }

  zoomBy(factor, [x, y] = [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2]) {
    const before = this.frame;
    const zoom = Math.min(Math.max(this.zoom * factor, 1), MOST_ZOOM);
    const ratio = zoom / this.zoom;
    this.zoom = zoom;
    this.pan = [0, 0];
    const after = this.frame;
    if (zoom > 1) this.pan = [x - (x - before.left) * ratio - after.left, y - (y - before.top) * ratio - after.top];
    this.later();
  }

  // --- drawing ---

  /** Draw before the browser shows its next picture. */
  later() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => this.draw());
  }

  draw() {
    cancelAnimationFrame(this.waiting);
    this.waiting = null;
    const { canvas, scene } = this;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (!width || !height || !scene.image) return;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    this.paint();
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    const { x, y, left, top } = this.frame;
    const place = [left, top, this.width * x, this.height * y];
    context.imageSmoothingEnabled = Math.min(x, y) < 8;
    context.drawImage(this.base.canvas, ...place);
    context.imageSmoothingEnabled = false;
    context.globalAlpha = scene.outline ? Math.min(1, scene.opacity + 0.4) : scene.opacity;
    context.drawImage(this.overlay.canvas, ...place);
    context.globalAlpha = 1;
    if (!scene.image.flat) this.drawCross(context);
    this.tool?.paint?.(context, this);
    this.say();
  }

  /** The slice's own pixels anew, where the slice or the way it is shown has changed. */
  paint() {
    const key = `${this.index} ${this.scene.version} ${this.source ?? this.scene.source}`;
    if (key === this.key) return;
    this.key = key;
    const { scene, plane, index } = this;
    paintImage(scene.image, plane, index, scene.window, scene.table, this.base.pixels);
    this.base.show();
    this.overlay.pixels.fill(0);
    for (const map of scene.layers(this.source ?? undefined)) {
      if (map.truth) {
        const over = new Uint32Array(this.overlay.pixels.length);
        paintLabels(map.volume, plane, index, map.colours, true, over);
        over.forEach((pixel, n) => pixel && (this.overlay.pixels[n] = lighter(pixel)));
      } else paintLabels(map.volume, plane, index, map.colours, map.outline, this.overlay.pixels);
    }
    this.overlay.show();
  }

  drawCross(context) {
    const [column, row] = pixelOf(this.scene.image, this.plane, this.scene.cursor);
    const [x, y] = this.onCanvas([column + 0.5, row + 0.5]).map((v) => Math.round(v) + 0.5);
    const { clientWidth, clientHeight } = this.canvas;
    context.strokeStyle = "rgb(120 210 240 / 55%)";
    context.lineWidth = 1;
    context.beginPath();
    for (const [a, b, c, d] of [[0, y, x - 9, y], [x + 9, y, clientWidth, y], [x, 0, x, y - 9], [x, y + 9, x, clientHeight]]) {
      context.moveTo(a, b);
      context.lineTo(c, d);
    }
    context.stroke();
  }

  say() {
    const of = this.slices > 1 ? ` ${this.place + 1} / ${this.slices}` : "";
    this.caption.textContent = `${this.title}${of}`;
    const how = this.slices > 1 ? "Arrow keys move through slices" : "Arrow keys move, plus and minus zoom";
    this.canvas.setAttribute("aria-label", `${this.title}${of && `, slice${of.replace("/", "of")}`}. ${how}.`);
    this.slider.value = this.place + 1;
  }

  // --- mouse, fingers, keys ---

  listen() {
    const { canvas } = this;
    const fingers = new Map();
    let drag = null;
    let wheel = 0;
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = canvas.getBoundingClientRect();
      if (event.ctrlKey || event.metaKey || this.slices === 1)
        return this.zoomBy(Math.exp(-event.deltaY / 300), [event.clientX - box.left, event.clientY - box.top]);
      wheel += event.deltaMode ? event.deltaY * STEP_PIXELS : event.deltaY;
      const steps = Math.trunc(wheel / STEP_PIXELS);
      if (steps) this.step(event.deltaMode || Math.abs(event.deltaY) >= 100 ? -Math.sign(steps) : -steps);
      if (steps) wheel = 0;
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.focus({ preventScroll: true });
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      const at = this.under(event);
      if (fingers.size === 2) drag = { kind: "pinch" };
      else if (event.button === 2) drag = { kind: "window", from: this.scene.window, x: event.clientX, y: event.clientY };
      else if (event.button === 1 || event.altKey) drag = { kind: "pan", x: event.clientX, y: event.clientY };
      else if (this.tool) drag = this.inside(at) ? { kind: "tool" } : null;
      else drag = this.scene.image.flat || event.shiftKey ? { kind: "pan", x: event.clientX, y: event.clientY } : { kind: "cursor" };
      if (drag?.kind === "tool") this.tool.down(at, event);
      if (drag?.kind === "cursor" && this.inside(at)) this.scene.moveTo(this.voxel(at));
    });
    canvas.addEventListener("pointermove", (event) => {
      const at = this.under(event);
      this.hover = this.inside(at) ? this.voxel(at) : null;
      this.scene.dispatchEvent(new CustomEvent("hover", { detail: this.hover }));
      const before = fingers.get(event.pointerId);
      if (!before || !drag) return;
      if (drag.kind === "pinch" && fingers.size === 2) {
        const spread = () => Math.hypot(...[0, 1].map((n) => [...fingers.values()].map((f) => f[n]).reduce((a, b) => a - b)));
        const old = spread();
        fingers.set(event.pointerId, [event.clientX, event.clientY]);
        if (old > 0) this.zoomBy(spread() / old);
        return;
      }
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      if (drag.kind === "tool") this.tool.move(at, event);
      if (drag.kind === "cursor" && this.inside(at)) this.scene.moveTo(this.voxel(at));
      if (drag.kind === "pan") {
        this.pan = [this.pan[0] + event.clientX - before[0], this.pan[1] + event.clientY - before[1]];
        this.later();
      }
      if (drag.kind === "window" && !this.scene.image.rgb) {
        const { low, high } = drag.from;
        const wide = Math.max((high - low) * Math.exp((event.clientX - drag.x) / 200), 1e-6);
        const middle = (low + high) / 2 + ((event.clientY - drag.y) / 300) * (high - low);
        this.scene.setWindow({ low: middle - wide / 2, high: middle + wide / 2 });
      }
    });
    const end = (event) => {
      if (drag?.kind === "tool" && event.type === "pointerup") this.tool.up(this.under(event), event);
      fingers.delete(event.pointerId);
      drag = null;
    };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener("pointerleave", () => this.scene.dispatchEvent(new CustomEvent("hover", { detail: null })));
    canvas.addEventListener("dblclick", () => !this.tool && this.reset());
    canvas.addEventListener("keydown", (event) => this.pressed(event));
  }

  reset() {
    Object.assign(this, { zoom: 1, pan: [0, 0] });
    this.later();
  }

  pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const shift = (x, y) => () => {
      this.pan = [this.pan[0] + x, this.pan[1] + y];
      this.later();
    };
    const still = this.slices === 1;
    const act = {
      ArrowUp: still ? shift(0, 40) : () => this.step(1),
      ArrowRight: still ? shift(-40, 0) : () => this.step(1),
      ArrowDown: still ? shift(0, -40) : () => this.step(-1),
      ArrowLeft: still ? shift(40, 0) : () => this.step(-1),
      PageUp: () => this.step(10),
      PageDown: () => this.step(-10),
      Home: () => this.step(-this.slices),
      End: () => this.step(this.slices),
      "+": () => this.zoomBy(1.25),
      "=": () => this.zoomBy(1.25),
      "-": () => this.zoomBy(0.8),
      0: () => this.reset(),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }
}

const lighter = (pixel) => {
  const half = (shift) => (255 + 2 * ((pixel >>> shift) & 255)) / 3;
  return (0xff000000 | (half(16) << 16) | (half(8) << 8) | half(0)) >>> 0;
};

function layer(width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const image = new ImageData(width, height);
  return { canvas, pixels: new Uint32Array(image.data.buffer), show: () => context.putImageData(image, 0, 0) };
}
