// The tile with the 3-D view: NiiVue, loaded when it is asked for, with a reduced copy of the image and its labels.

import { make } from "/dom.js";

const NIIVUE = "/vendor/niivue.js";
const MOST = 160; // voxels along an axis of the copy

/** {figure, close}. Where the machine draws without a graphics card, the view waits for a click. */
export function solidTile(scene) {
  const canvas = make("canvas", { tabindex: 0, role: "img", "aria-label": "3-D view. Drag to turn it.", hidden: true });
  const start = make("button", { type: "button", onclick: () => show() }, "Show in 3-D");
  const word = make("p", { class: "muted" }, start);
  const figure = make("figure", { class: "pane solid" }, make("div", { class: "picture" }, canvas, word), make("figcaption", {}, "3-D"));
  let view = null;
  let closed = false;
  let begun = false;
  const renew = () => view && draw(view, scene).catch((fault) => say(fault.message));
  const say = (sentence) => {
    canvas.hidden = true;
    word.hidden = false;
    word.textContent = sentence;
  };

  async function show() {
    if (begun) return;
    begun = true;
    const found = await library();
    if (closed) return;
    if (typeof found === "string") return say(found);
    word.textContent = "Building the 3-D view …";
    canvas.hidden = false;
    try {
      const nv = new found.Niivue({
        backColor: [0, 0, 0, 1], show3Dcrosshair: false, isOrientCube: true, dragAndDropEnabled: false, logLevel: "error",
        isColorbar: false, crosshairWidth: 0, loadingText: "",
      });
      await nv.attachToCanvas(canvas, false);
      nv.setSliceType(nv.sliceTypeRender);
      view = { nv, NVImage: found.NVImage };
      await draw(view, scene);
      word.hidden = true;
      figure.niivue = nv;
    } catch (fault) {
      say(`The 3-D view could not be drawn: ${fault.message}`);
    }
  }

  scene.addEventListener("look", renew);
  // Asking for a graphics card can take a second where there is none; the planes are drawn before.
  setTimeout(() => !closed && hasGraphicsCard() && show(), 100);
  const close = () => {
    closed = true;
    scene.removeEventListener("look", renew);
    view?.nv.gl?.getExtension("WEBGL_lose_context")?.loseContext();
    view = null;
  };
  return { figure, close, show };
}

/** The module, or why there is none. */
async function library() {
  if (!document.createElement("canvas").getContext("webgl2")) return "This browser offers no WebGL 2, which the 3-D view needs.";
  const there = await fetch("/api/about").then((found) => found.json(), () => ({}));
  if (!there.solid) return "For the 3-D view run `make page` once (it needs Node.js), or install a built wheel.";
  return import(NIIVUE);
}

let card = null;

function hasGraphicsCard() {
  if (card !== null) return card;
  const gl = document.createElement("canvas").getContext("webgl2");
  const named = gl?.getExtension("WEBGL_debug_renderer_info");
  const name = named ? gl.getParameter(named.UNMASKED_RENDERER_WEBGL) : "";
  gl?.getExtension("WEBGL_lose_context")?.loseContext();
  card = Boolean(gl) && !/swiftshader|llvmpipe|software|basic render/i.test(name);
  return card;
}

async function draw({ nv, NVImage }, scene) {
  const map = scene.maps.prediction && scene.source !== "truth" ? scene.maps.prediction : (scene.maps.truth ?? null);
  const parts = [[scene.image, "gray", map ? 0.25 : 1], ...(map ? [[map.volume, "gray", 1]] : [])];
  while (nv.volumes.length) nv.removeVolume(nv.volumes[0]);
  for (const [n, [volume, colormap, opacity]] of parts.entries()) {
    const image = await NVImage.new(reduced(volume, n === 1), n ? "labels.nii" : "image.nii", colormap, opacity, null, NaN, NaN, true, 0.02, false, false, "", 0, undefined, NaN, NaN, false, null, 0, null);
    if (n === 1) image.setColormapLabel(lut(map.classes, scene.hidden));
    else Object.assign(image, { cal_min: scene.window.low, cal_max: scene.window.high });
    nv.addVolume(image);
  }
  if (nv.volumes.length) {
    nv.volumes[0].opacity = parts[0][2];
    nv.updateGLVolume();
  }
}

function lut(classes, hidden) {
  const shown = classes.filter((c) => c.foreground && !hidden.has(c.name));
  const entries = [{ id: 0, color: [0, 0, 0], alpha: 0 }, ...shown.map((c) => ({ ...c, alpha: 255 }))];
  return {
    R: entries.map((c) => c.color[0]), G: entries.map((c) => c.color[1]), B: entries.map((c) => c.color[2]),
    A: entries.map((c) => c.alpha), I: entries.map((c) => c.id), labels: entries.map((c) => c.name ?? ""),
  };
}

/** A NIfTI-1 file (float32, or uint16 of ids) of every so-manieth voxel. */
function reduced(volume, ids) {
  const steps = volume.size.map((n) => Math.ceil(n / MOST));
  const size = volume.size.map((n, axis) => Math.ceil(n / steps[axis]));
  const bytes = new ArrayBuffer(352 + size[0] * size[1] * size[2] * (ids ? 2 : 4));
  const view = new DataView(bytes);
  view.setInt32(0, 348, true);
  [3, ...size, 1, 1, 1, 1].forEach((n, at) => view.setInt16(40 + 2 * at, n, true));
  view.setInt16(70, ids ? 512 : 16, true);
  view.setInt16(72, ids ? 16 : 32, true);
  [1, ...volume.spacing.map((mm, axis) => mm * steps[axis])].forEach((mm, at) => view.setFloat32(76 + 4 * at, mm, true));
  view.setFloat32(108, 352, true);
  view.setFloat32(112, 1, true);
  view.setUint8(123, 2);
  view.setInt16(254, 1, true);
  for (let r = 0; r < 3; r++)
    for (let c = 0; c < 4; c++) view.setFloat32(280 + 16 * r + 4 * c, volume.affine[r][c] * (c < 3 ? steps[c] : 1), true);
  [110, 43, 49, 0].forEach((letter, at) => view.setUint8(344 + at, letter)); // "n+1"
  const values = ids ? new Uint16Array(bytes, 352) : new Float32Array(bytes, 352);
  let n = 0;
  for (let k = 0; k < size[2]; k++)
    for (let j = 0; j < size[1]; j++)
      for (let i = 0; i < size[0]; i++) {
        const at = volume.offset([i * steps[0], j * steps[1], k * steps[2]]);
        values[n++] = volume.rgb ? volume.data[3 * at + 1] : ids ? volume.data[at] : volume.data[at] * volume.slope + volume.inter;
      }
  return bytes;
}
