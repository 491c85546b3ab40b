// A scene on the page: the tools above, panes in the middle, and what lies under the cursor below.

import { amount, fill, find, make, readable } from "/dom.js";
import { Pane } from "/pane.js";
import { solidTile } from "/solid.js";
import { slicePlace } from "/volume.js";

// Level and width in HU, as radiologists set them.
const WINDOWS = { "Soft tissue": [40, 400], Lung: [-600, 1500], Bone: [400, 1800], Brain: [40, 80] };
const NARROW = matchMedia("(max-width: 760px)");

export class Viewer {
  constructor(scene) {
    this.scene = scene;
    this.layout = null;
    this.panes = [];
    this.place = find("#panes");
    scene.addEventListener("image", () => this.arrange());
    scene.addEventListener("look", () => this.refresh());
    scene.addEventListener("cursor", () => {
      for (const pane of this.panes) pane.later();
      this.read(null);
    });
    scene.addEventListener("hover", (event) => this.read(event.detail));
    new ResizeObserver(() => this.panes.forEach((pane) => pane.later())).observe(this.place);
    NARROW.addEventListener("change", () => this.arrange());
    this.say("Choose a case from the list, or an image of your own.");
  }

  /** Something instead of an image: a sentence, or elements. */
  say(...content) {
    this.panes = [];
    this.place.className = "panes empty";
    fill(this.place, make("div", { class: "card" }, ...content));
    find("#tools").hidden = true;
    find("#readout").textContent = "";
  }

  get layouts() {
    const { image, maps } = this.scene;
    if (!image) return {};
    const found = {};
    if (!image.flat && !NARROW.matches) found.planes = "Planes";
    for (const name of image.planes) found[name] = name[0].toUpperCase() + name.slice(1);
    if (!image.flat && NARROW.matches) found.solid = "3-D";
    if (maps.prediction && maps.truth) found.beside = "Beside truth";
    return found;
  }

  /** Panes anew for the image and the layout; what a tool needs is one plane. */
  arrange(layout = this.layout) {
    const { scene } = this;
    if (!scene.image) return;
    const layouts = this.layouts;
    this.layout = layout in layouts ? layout : Object.keys(layouts)[NARROW.matches || scene.image.flat ? 0 : 0];
    const image = scene.image;
    const across = (names, options) => names.map((name) => new Pane(scene, image.plane(name), options));
    this.solid?.close();
    this.solid = null;
    const largest = image.flat ? "picture" : this.mainPlane;
    if (this.fixed) this.panes = [new Pane(scene, this.fixed)];
    else if (this.layout === "planes") this.panes = across(["axial", "coronal", "sagittal"]);
    else if (this.layout === "beside")
      this.panes = [...across([largest], { source: "prediction", title: "prediction" }), ...across([largest], { source: "truth", title: "truth" })];
    else if (this.layout === "solid") this.panes = [];
    else this.panes = across([this.layout]);
    for (const pane of this.panes) pane.tool = this.tool ?? null;
    this.place.className = `panes ${this.fixed ? "one" : this.layout}`;
    const wantsSolid = !this.fixed && ["planes", "solid"].includes(this.layout);
    if (wantsSolid) this.solid = solidTile(scene);
    fill(this.place, ...this.panes.map((pane) => pane.figure), this.solid?.figure);
    find("#tools").hidden = false;
    this.showTools();
    this.refresh();
  }

  /** The plane that is sharpest: across the largest spacing, axial where they are alike. */
  get mainPlane() {
    const { spacing, world } = this.scene.image;
    const along = ["sagittal", "coronal", "axial"].map((name, n) => [spacing[world[n].axis], name]);
    const most = Math.max(...along.map(([mm]) => mm));
    return along.filter(([mm]) => mm >= 0.99 * most).at(-1)[1];
  }

  /** One plane for a tool (of corrections) that all clicks go to; nothing: as before. */
  use(tool, plane) {
    Object.assign(this, { tool, fixed: plane });
    this.arrange();
  }

  refresh() {
    if (!this.scene.image) return;
    for (const pane of this.panes) pane.later();
    const known = Object.keys(this.layouts).join();
    if (known !== this.knownLayouts) this.showTools();
    this.markTools();
    this.read(null);
  }

  // --- tools ---

  showTools() {
    const { scene } = this;
    const layouts = this.layouts;
    this.knownLayouts = Object.keys(layouts).join();
    const choices = (label, entries, chosen, act) =>
      make("div", { class: "choices", role: "group", "aria-label": label },
        ...Object.entries(entries).map(([key, name]) =>
          make("button", { type: "button", "data-key": key, "aria-pressed": String(key === chosen), onclick: () => act(key) }, name)));
    const opacity = make("input", { type: "range", min: 0, max: 100, value: 100 * scene.opacity, "aria-label": "Opacity of labels" });
    opacity.addEventListener("input", () => {
      scene.opacity = opacity.value / 100;
      this.panes.forEach((pane) => pane.later());
    });
    const outline = make("input", { type: "checkbox" });
    outline.checked = scene.outline;
    outline.addEventListener("change", () => {
      scene.outline = outline.checked;
      scene.changed("look");
    });
    const presets = scene.image.rgb ? null : { auto: "Auto", ...(scene.image.isHu ? Object.fromEntries(Object.keys(WINDOWS).map((n) => [n, n])) : {}) };
    this.sources = choices("Labels shown", { prediction: "Prediction", truth: "Truth", both: "Both" }, scene.source, (key) => {
      scene.source = key;
      scene.changed("look");
    });
    this.layoutChoices = choices("Layout", layouts, this.layout, (key) => this.arrange(key));
    this.windowChoices = presets && choices("Window", presets, null, (key) => {
      const [level, width] = WINDOWS[key] ?? [];
      scene.setWindow(key === "auto" ? scene.image.autoWindow : { low: level - width / 2, high: level + width / 2 });
    });
    fill(find("#tools"),
      this.fixed || Object.keys(layouts).length < 2 ? null : this.layoutChoices, this.windowChoices, this.sources,
      make("label", { class: "inline" }, "Labels", opacity), make("label", { class: "inline" }, outline, "Outlines"),
      make("button", { type: "button", class: "quiet", title: "Fit the picture again (0)", onclick: () => this.panes.forEach((p) => p.reset()) }, "Fit"));
    this.markTools();
  }

  markTools() {
    const { scene } = this;
    const mark = (group, chosen) =>
      group?.querySelectorAll("button").forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.key === chosen)));
    const same = ({ low, high }) => Math.abs(low - scene.window.low) + Math.abs(high - scene.window.high) < 1e-6;
    const preset = Object.entries(WINDOWS).find(([, [level, width]]) => same({ low: level - width / 2, high: level + width / 2 }))?.[0];
    mark(this.windowChoices, same(scene.image.autoWindow) ? "auto" : preset);
    mark(this.layoutChoices, this.layout);
    mark(this.sources, scene.source);
    this.sources.hidden = !(scene.maps.prediction && scene.maps.truth) || this.layout === "beside";
  }

  // --- readout ---

  read(hover) {
    const { scene } = this;
    if (!scene.image || !this.panes.length) return;
    const { image } = scene;
    const voxel = hover ?? (image.flat ? null : scene.cursor);
    if (!voxel) return void (find("#readout").textContent = "");
    const value = image.value(voxel);
    const shown = image.rgb ? `rgb ${value.join(" ")}` : `${amount(value)}${image.isHu ? " HU" : ""}`;
    const where = image.flat
      ? `column ${voxel[0] + 1}, row ${voxel[1] + 1}`
      : image.planes.map((name) => {
          const plane = image.plane(name);
          return `${name} ${slicePlace(image, plane, voxel[plane.slice]) + 1}`;
        }).join(", ");
    const named = ["prediction", "truth"].filter((name) => scene.maps[name]).map((name) => `${name}: ${readable(scene.classAt(name, voxel))}`);
    find("#readout").textContent = [where, shown, ...named].join(" · ");
  }
}
