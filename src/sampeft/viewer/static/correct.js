// Corrections: points and boxes on a slice of the model, the mask that they give, and what is done with it.

import { ask, path, remove, send } from "/api.js";
import { amount, colour, fill, make, readable } from "/dom.js";
import { maskOf } from "/painting.js";
import { voxelOf } from "/volume.js";

/** The plane in which the model's slices lie, as the result describes it. */
export function modelPlane(image, result) {
  const plane = image.plane(image.flat ? "picture" : result.plane);
  if (image.flat) return plane;
  const [slice, row, column] = result.axes;
  return { ...plane, slice, row, column, backwards: result.backwards };
}

export class Correction {
  /** body: a prediction that is done. saves: whether the server keeps corrected cases. onChange: after each correction. say: shows a sentence. */
  constructor({ scene, viewer, body, classes, saves, onChange, say }) {
    Object.assign(this, { scene, viewer, body, classes, saves, onChange, say, on: false });
    this.plane = modelPlane(scene.image, body.result);
    this.label = (classes.find((c) => c.foreground) ?? classes[0]).name;
    this.kind = "inside";
    this.steps = body.result.corrections;
    this.kept = []; // what slices were before, for taking back without loading the map again
    this.clear();
    this.panel = make("section", { class: "correct", "aria-label": "Correct" });
    this.show();
  }

  get color() {
    return this.classes.find((c) => c.name === this.label).color;
  }

  clear() {
    Object.assign(this, { told: null, points: [], box: null, drag: null, mask: null, slice: null, asked: (this.asked ?? 0) + 1, busy: false });
  }

  // --- the tool of the pane ---

  down(at, event) {
    this.begin(this.viewer.panes[0].place);
    if (this.kind === "box") this.drag = { from: at, to: at };
    else {
      const inside = (this.kind === "inside") !== event.shiftKey;
      this.points.push([Math.floor(at[0]), Math.floor(at[1]), inside ? 1 : 0]);
      this.prompt();
    }
  }

  move(at) {
    if (this.drag) this.drag.to = at;
    this.redraw();
  }

  up(at) {
    if (!this.drag) return;
    const pane = this.viewer.panes[0];
    const limit = (v, most) => Math.min(Math.max(v, 0), most);
    const ends = [this.drag.from, at].map(([x, y]) => [limit(x, pane.width), limit(y, pane.height)]);
    this.drag = null;
    const [x0, x1] = [ends[0][0], ends[1][0]].sort((a, b) => a - b);
    const [y0, y1] = [ends[0][1], ends[1][1]].sort((a, b) => a - b);
    if (x1 - x0 < 1 || y1 - y0 < 1) return this.redraw();
    this.box = [x0, y0, x1, y1];
    this.prompt();
  }

  paint(context, pane) {
    if (this.slice !== pane.place) return;
    if (this.mask) paintMask(context, pane, this.mask, this.color);
    const box = this.drag ? [...this.drag.from, ...this.drag.to] : this.box;
    context.lineWidth = 2;
    if (box) {
      const [a, b] = [pane.onCanvas([box[0], box[1]]), pane.onCanvas([box[2], box[3]])];
      context.strokeStyle = "#fff";
      context.setLineDash([6, 4]);
      context.strokeRect(a[0], a[1], b[0] - a[0], b[1] - a[1]);
      context.setLineDash([]);
    }
    for (const [x, y, inside] of this.points) {
      const [cx, cy] = pane.onCanvas([x + 0.5, y + 0.5]);
      context.fillStyle = inside ? "#1fbf6b" : "#e5484d";
      context.strokeStyle = "#fff";
      context.beginPath();
      context.arc(cx, cy, 6, 0, 7);
      context.fill();
      context.stroke();
      context.beginPath();
      context.moveTo(cx - 3, cy);
      context.lineTo(cx + 3, cy);
      if (inside) {
        context.moveTo(cx, cy - 3);
        context.lineTo(cx, cy + 3);
      }
      context.stroke();
    }
  }

  redraw() {
    for (const pane of this.viewer.panes) pane.later();
  }

  begin(slice) {
    if (this.slice !== null && this.slice !== slice) this.clear();
    this.slice = slice;
  }

  // --- with the server ---

  async prompt() {
    const asked = ++this.asked;
    this.busy = true;
    this.show();
    this.redraw();
    try {
      const found = await send(path`/api/predictions/${this.body.id}/prompt`, {
        slice: this.slice, label: this.label, adapted: this.adapted ?? false,
        boxes: this.box ? [this.box] : [], points: this.points.length ? [this.points] : [],
      });
      if (asked !== this.asked) return; // a newer click, or cleared
      this.mask = { ...found.mask, inside: maskOf(found.mask), pixels: found.pixels };
    } catch (fault) {
      if (asked === this.asked) this.say(fault.message);
    }
    if (asked !== this.asked) return;
    this.busy = false;
    this.show();
    this.redraw();
  }

  async accept() {
    if (!this.mask || this.busy) return;
    const { slice, mask, label } = this;
    const over = !this.sparing;
    this.busy = true;
    this.show();
    try {
      const found = await send(path`/api/predictions/${this.body.id}/corrections`, {
        slice, label, over, mask: { size: mask.size, counts: mask.counts },
      });
      this.draw(slice, mask, label, over);
      this.clear();
      this.after(found);
    } catch (fault) {
      this.busy = false;
      this.say(fault.message);
      this.show();
    }
  }

  async undo() {
    if (!this.steps) return;
    try {
      const found = await remove(path`/api/predictions/${this.body.id}/corrections/last`);
      const last = this.kept.pop();
      const { volume } = this.scene.maps.prediction;
      if (last) for (let n = 0; n < last.at.length; n++) volume.data[last.at[n]] = last.ids[n];
      this.clear();
      this.goTo(found.slice);
      await this.after(found, !last);
    } catch (fault) {
      this.say(fault.message);
    }
  }

  /** Put the accepted mask into the map that is shown, by the rule of the server. */
  draw(slice, mask, label, over) {
    const pane = this.viewer.panes[0];
    const { volume, classes } = this.scene.maps.prediction;
    const id = classes.find((c) => c.name === label).id;
    const foreground = new Set(classes.filter((c) => c.foreground).map((c) => c.id));
    const at = [];
    const ids = [];
    const index = this.plane.backwards[0] ? pane.slices - 1 - slice : slice;
    mask.inside.forEach((inside, n) => {
      if (!inside) return;
      const place = volume.offset(voxelOf(volume, this.plane, index, n % pane.width, Math.floor(n / pane.width)));
      const before = volume.data[place];
      if (before === id || (!over && foreground.has(before))) return;
      at.push(place);
      ids.push(before);
      volume.data[place] = id;
    });
    this.kept.push({ at, ids });
  }

  async after(found, stale = false) {
    this.steps = found.corrections;
    this.told = changes(this.body.result, found);
    Object.assign(this.body.result, { pixels: found.pixels, ml: found.ml, corrections: found.corrections, revision: found.revision });
    this.scene.changed("look");
    this.show();
    await this.onChange(stale);
    if (stale) this.scene.changed("look");
  }

  async save(name) {
    try {
      const found = await ask(path`/api/predictions/${this.body.id}/save`, {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ name: name || null }),
      });
      this.say(`Saved: ${found.image} and ${found.label}.`, "good");
    } catch (fault) {
      this.say(fault.message);
    }
  }

  // --- its panel ---

  goTo(slice) {
    const { plane, scene } = this;
    const cursor = [...scene.cursor];
    cursor[plane.slice] = plane.backwards[0] ? scene.image.size[plane.slice] - 1 - slice : slice;
    scene.moveTo(cursor);
  }

  turn(on) {
    this.on = on;
    this.clear();
    this.viewer.use(on ? this : null, on ? this.plane : null);
    this.show();
  }

  show() {
    const head = make("button", { type: "button", class: "toggle", "aria-pressed": String(this.on), onclick: () => this.turn(!this.on) }, this.on ? "Stop correcting" : "Correct this result");
    const undo = make("button", { type: "button", disabled: !this.steps, onclick: () => this.undo(), title: "Ctrl+Z" }, `Undo${this.steps ? ` (${this.steps})` : ""}`);
    const name = make("input", { type: "text", placeholder: this.body.name, "aria-label": "Name of the saved case", maxlength: 100 });
    name.value = this.name ?? "";
    name.addEventListener("input", () => (this.name = name.value));
    const save = this.saves
      ? make("form", { class: "bar", onsubmit: (event) => { event.preventDefault(); this.save(name.value); } }, name, make("button", { class: "primary" }, "Save case"))
      : make("p", { class: "muted small" }, "To save corrected cases, start the server with --corrections DIR.");
    if (!this.on) return fill(this.panel, make("h2", {}, "Correct"), make("div", { class: "bar" }, head, this.steps ? undo : null), this.steps ? save : null);
    const label = make("select", { "aria-label": "Class" }, ...this.classes.map((c) => make("option", { value: c.name }, c.foreground ? readable(c.name) : `${readable(c.name)} (erase)`)));
    label.value = this.label;
    label.addEventListener("change", () => {
      this.label = label.value;
      this.show();
      this.redraw();
    });
    const kinds = Object.entries({ inside: "Inside", outside: "Outside", box: "Box" }).map(([kind, text]) =>
      make("button", { type: "button", "data-kind": kind, "aria-pressed": String(kind === this.kind), onclick: () => { this.kind = kind; this.show(); } }, text));
    const check = (key, text) => {
      const box = make("input", { type: "checkbox" });
      box.checked = Boolean(this[key]);
      box.addEventListener("change", () => {
        this[key] = box.checked;
        if (key === "adapted" && (this.points.length || this.box)) this.prompt();
      });
      return make("label", { class: "inline" }, box, text);
    };
    const what = this.busy ? "Working …"
      : this.mask ? (this.mask.pixels ? `${this.mask.pixels.toLocaleString("en")} pixels. Accept, or add points.` : "Nothing found there; try other points, or a box.")
      : (this.told ?? "Click into the object, Shift+click outside of it, or drag a box around it.");
    const held = document.activeElement?.dataset?.kind;
    fill(this.panel, make("h2", {}, "Correct"), head,
      make("label", { class: "field" }, make("span", {}, make("i", { class: "swatch", style: `background:${colour(this.color)}` }), "Class"), label),
      make("div", { class: "choices", role: "group", "aria-label": "What a click means" }, ...kinds),
      make("p", { class: "hint", role: "status" }, what),
      make("div", { class: "bar" },
        make("button", { type: "button", class: "primary", disabled: !this.mask?.pixels || this.busy, onclick: () => this.accept(), title: "Enter" }, "Accept"),
        make("button", { type: "button", disabled: this.slice === null, onclick: () => { this.clear(); this.show(); this.redraw(); }, title: "Escape" }, "Clear"), undo),
      check("sparing", "Spare other classes"), check("adapted", "Use the trained adapter for masks"), save);
    if (held) this.panel.querySelector(`[data-kind="${held}"]`)?.focus();
  }

  /** Keys while correcting; whether one was meant. */
  pressed(event) {
    if (!this.on) return false;
    if (event.key === "Enter" && event.target.tagName !== "BUTTON") this.accept();
    else if (event.key === "Escape") {
      this.clear();
      this.show();
      this.redraw();
    } else if (event.key === "z" && (event.ctrlKey || event.metaKey)) this.undo();
    else return false;
    return true;
  }
}

/** What a correction did to the sizes of classes, such as `c2: +0.17 ml, c1: −0.05 ml`. */
function changes(before, after) {
  const [old, now, unit] = after.ml ? [before.ml, after.ml, "ml"] : [before.pixels, after.pixels, "pixels"];
  const changed = Object.keys(now).filter((name) => now[name] !== old[name]);
  const by = (name) => `${readable(name)}: ${now[name] > old[name] ? "+" : "−"}${amount(Math.abs(now[name] - old[name]))} ${unit}`;
  return changed.length ? `Changed. ${changed.map(by).join(", ")}.` : "Nothing has changed by it.";
}

function paintMask(context, pane, { size: [height, width], inside }, color) {
  const picture = new ImageData(width, height);
  const pixels = new Uint32Array(picture.data.buffer);
  const fillColour = ((140 << 24) | (color[2] << 16) | (color[1] << 8) | color[0]) >>> 0;
  for (let n = 0; n < inside.length; n++) {
    if (!inside[n]) continue;
    const column = n % width;
    const edge = column === 0 || column === width - 1 || n < width || n >= inside.length - width || !inside[n - 1] || !inside[n + 1] || !inside[n - width] || !inside[n + width];
    pixels[n] = edge ? 0xffffffff : fillColour;
  }
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(picture, 0, 0);
  const { x, y, left, top } = pane.frame;
  context.imageSmoothingEnabled = false;
  context.drawImage(canvas, left, top, width * x, height * y);
}
