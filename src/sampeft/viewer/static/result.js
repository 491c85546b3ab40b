// What is known of the image that is shown, on the right: its classes and sizes, scores, progress, downloads.

import { ask, path } from "/api.js";
import { ABOUT_CONFIDENCE, amount, breakable, colour, duration, fill, make, probability, readable, score } from "/dom.js";
import { isActive, stateOf } from "/predictions.js";

/** Rows of a table of classes. onFind: called with a class whose name is pressed. */
export function legend(scene, { classes, sizes, unit, scores, onFind }) {
  const metric = scores && (Object.keys(Object.values(scores)[0] ?? {}).includes("dsc") ? "dsc" : null);
  const rows = classes.filter((c) => c.foreground).map((c) => {
    const box = make("input", { type: "checkbox", "aria-label": `Show ${readable(c.name)}`, "data-class": c.name });
    box.checked = !scene.hidden.has(c.name);
    box.addEventListener("change", () => scene.toggle(c.name, box.checked));
    const size = sizes?.[c.name];
    return make("tr", { class: size === 0 ? "absent" : null },
      make("td", {}, box),
      make("td", {}, make("button", { type: "button", class: "class", title: "Go there", onclick: () => onFind(c) }, make("i", { class: "swatch", style: `background:${colour(c.color)}` }), readable(c.name))),
      make("td", { class: "number" }, size === undefined ? "" : size === 0 ? "–" : amount(size)),
      metric && make("td", { class: "number" }, score(scores[c.name]?.[metric])));
  });
  const all = (shown) => () => {
    for (const c of classes) if (c.foreground) scene.hidden[shown ? "delete" : "add"](c.name);
    scene.changed("look");
    for (const box of table.querySelectorAll("input")) box.checked = shown;
  };
  const table = make("table", { class: "legend" },
    make("thead", {}, make("tr", {}, make("th", {}, make("span", { class: "hidden" }, "Shown")), make("th", {}, "Class"), make("th", { class: "number" }, unit), metric && make("th", { class: "number" }, "DSC"))),
    make("tbody", {}, ...rows));
  return make("div", {}, make("div", { class: "bar" }, make("h2", {}, "Classes"), make("button", { type: "button", class: "quiet small", onclick: all(true) }, "all"), make("button", { type: "button", class: "quiet small", onclick: all(false) }, "none")), table);
}

/** Every score of every class, folded. */
export function scoreTable({ policy, classes }) {
  const names = Object.keys(classes);
  const metrics = Object.keys(classes[names[0]] ?? {});
  const title = (m) => m.replaceAll("_", " ").toUpperCase().replace(/ (MM|PX)$/, (unit) => unit.toLowerCase());
  return make("details", { class: "scores" }, make("summary", {}, "All scores against the truth"),
    make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Scores" }, make("table", { class: "grid" },
      make("thead", {}, make("tr", {}, make("th", {}, "Class"), ...metrics.map((m) => make("th", { class: "number" }, title(m))))),
      make("tbody", {}, ...names.map((name) => make("tr", {}, make("th", { scope: "row" }, readable(name)), ...metrics.map((m) => make("td", { class: "number" }, score(classes[name][m])))))))),
    make("p", { class: "muted small" }, policy));
}

export function progress(body, onCancel) {
  const bar = make("progress", { max: 1, "aria-label": `Segmenting ${body.name}` });
  if (body.state !== "queued") bar.value = body.progress;
  return make("div", { class: "progress" }, make("p", {}, body.state === "sending" ? "Sending" : "Segmenting", " ", make("b", {}, breakable(body.name))), bar,
    make("div", { class: "bar" }, make("span", { class: "muted small" }, stateOf(body, duration)), make("button", { type: "button", onclick: onCancel }, "Cancel")));
}

/** Links to the files of a prediction. */
export function downloads({ id, result }) {
  const kinds = { nifti: "NIfTI", dicom: "DICOM SEG", png: "PNG", geotiff: "GeoTIFF" };
  const link = (file, text) => make("a", { class: "button", href: `${path`/api/predictions/${id}/files/`}${file}`, download: "" }, text);
  return make("div", { class: "downloads" }, make("h2", {}, "Download"),
    make("div", { class: "bar" }, link("result", `Result (${kinds[result.kind]})`), result.kind === "nifti" ? null : link("map.nii.gz", "Map (NIfTI)"), link(result.flat ? "image.png" : "image.nii.gz", "Image")));
}

/** The least confident slices. onGo: called with the number of a slice, counted from 0. */
export function worstSlices({ worst_slices: worst, slices }, onGo) {
  if (slices < 2 || !worst.length) return null;
  return make("div", {}, make("h2", {}, "Least confident slices"),
    make("div", { class: "chips" }, ...worst.slice(0, 10).map(({ slice, confidence }) =>
      make("button", { type: "button", onclick: () => onGo(slice), title: `slice ${slice + 1}: ${ABOUT_CONFIDENCE}` }, `${slice + 1}`, make("small", {}, ` ${probability(confidence)}`)))));
}

/** Voxels of each class of a label map. */
export function counted({ volume, classes }) {
  const counts = new Float64Array(65536); // ids are 0..65535
  const { data } = volume;
  for (let n = 0; n < data.length; n++) counts[data[n]]++;
  return Object.fromEntries(classes.map((c) => [c.name, counts[c.id]]));
}

/** The voxel in the middle of a class's largest slice along an axis; null where there is none. */
export function middleOf({ volume }, id, axis) {
  const counts = new Float64Array(volume.size[axis]);
  const sums = [0, 1, 2].map(() => new Float64Array(volume.size[axis]));
  const [width, height] = volume.size;
  for (let at = volume.data.indexOf(id); at >= 0; at = volume.data.indexOf(id, at + 1)) {
    const voxel = [at % width, Math.floor(at / width) % height, Math.floor(at / (width * height))];
    const n = voxel[axis];
    counts[n]++;
    for (let a = 0; a < 3; a++) sums[a][n] += voxel[a];
  }
  const largest = counts.indexOf(Math.max(...counts));
  return counts[largest] ? sums.map((sum) => Math.round(sum[largest] / counts[largest])) : null;
}

export const scoresOf = (id) => ask(path`/api/predictions/${id}/scores`);
export { isActive };
