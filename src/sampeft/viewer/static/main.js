// The page: puts runs, cases, the image in the middle and what is known of it together.

import { ask, path } from "/api.js";
import { Cases } from "/cases.js";
import { Compare } from "/compare.js";
import { Correction } from "/correct.js";
import { ABOUT_CONFIDENCE, amount, breakable, duration, fill, find, make, probability, score } from "/dom.js";
import { readNifti } from "/nifti.js";
import { isActive, Predictions, stateOf } from "/predictions.js";
import { counted, downloads, legend, middleOf, progress, scoresOf, scoreTable, worstSlices } from "/result.js";
import { Scene } from "/scene.js";
import { Viewer } from "/viewer.js";
import { Volume } from "/volume.js";

const RUN = "sampeft.run";
const SHOWN = "sampeft.shown";

class Page {
  constructor(about, runs, cases, evaluations) {
    Object.assign(this, { about, runs, data: cases, evaluations, body: null, entry: null, opening: null, correction: null, scores: null });
    this.scene = new Scene();
    this.viewer = new Viewer(this.scene);
    this.predictions = new Predictions();
    this.cases = cases && new Cases(find("#cases"), cases, this.predictions, (entry) => this.guard(this.openCase(entry)));
    this.compare = new Compare(find("#compare"), evaluations, {
      say: (...word) => this.say(...word),
      knows: (id) => Boolean(this.cases?.every.some((entry) => entry.case === id)),
      openCase: (id) => {
        location.hash = "#look";
        this.guard(this.openCase(this.cases.every.find((entry) => entry.case === id)));
      },
    });
    this.chooser();
    this.dropping();
    this.predictions.addEventListener("change", () => this.showPredictions());
    this.predictions.addEventListener("fault", (event) => this.say(event.detail.message));
    this.predictions.addEventListener("ended", (event) => this.ended(event.detail));
    addEventListener("hashchange", () => this.route());
    addEventListener("keydown", (event) => this.pressed(event));
    this.route();
    this.showResult();
    addEventListener("pagehide", () => this.remember());
    this.guard(this.restore());
  }

  get run() {
    return this.runs.find((run) => run.id === find("#run").value);
  }

  // --- what is said ---

  say(sentence, kind = "fault") {
    const close = make("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: () => box.remove() }, "×");
    const box = make("div", { class: `message ${kind}` }, make("span", {}, sentence[0].toUpperCase() + sentence.slice(1)), close);
    fill(find("#messages"), box);
    if (kind === "good") setTimeout(() => box.remove(), 8000);
  }

  /** Wait for something; a refusal is shown as its sentence. */
  async guard(promise) {
    try {
      return await promise;
    } catch (fault) {
      if (fault.name !== "AbortError") this.say(fault.message);
    }
  }

  // --- a reload ---

  remember() {
    const { entry, body } = this;
    const shown = entry ? { case: entry.case, image: entry.image } : body?.id && { id: body.id };
    sessionStorage.setItem(SHOWN, JSON.stringify(shown ?? null));
  }

  /** The segmentations of this tab, and what was shown when the page was left. */
  async restore() {
    await this.predictions.reload();
    const shown = JSON.parse(sessionStorage.getItem(SHOWN) ?? "null");
    if (!shown || this.opening) return; // something was chosen meanwhile
    const entry = this.cases?.every.find((e) => e.case === shown.case && e.image === shown.image);
    const body = this.predictions.bodies.find((b) => b.id === shown.id);
    if (entry) await this.openCase(entry);
    else if (body) await this.openPrediction(body);
  }

  // --- left ---

  chooser() {
    const select = find("#run");
    fill(select, ...this.runs.map((run) => make("option", { value: run.id }, `${run.id}: ${run.model}`)));
    const kept = sessionStorage.getItem(RUN);
    if (this.runs.some((run) => run.id === kept)) select.value = kept;
    const show = () => {
      const { run } = this;
      if (this.cases) this.cases.set({ run: run?.id ?? null });
      if (!run) return void (find("#about-run").textContent = "No trained run is served; start `sampeft serve RUN`.");
      sessionStorage.setItem(RUN, run.id);
      const dsc = run.headline?.dsc;
      const good = dsc ? `DSC ${score(dsc.mean)} [${score(dsc.low)}, ${score(dsc.high)}], ${dsc.n} cases` : "not evaluated";
      fill(find("#about-run"), `${run.labels.filter((l) => l.foreground).length} classes, side ${run.side} px, ${good}`,
        run.random_weights ? make("b", { class: "warning" }, " Random weights: its results mean nothing.") : null);
    };
    select.addEventListener("change", () => {
      show();
      if (this.entry) this.guard(this.openCase(this.entry));
      else this.showResult();
    });
    select.disabled = !this.runs.length;
    find("#file").disabled = !this.runs.length;
    show();
  }

  dropping() {
    const [drop, file] = [find("#drop"), find("#file")];
    file.addEventListener("change", () => {
      if (file.files.length) this.guard(this.segmentFiles([...file.files]));
      file.value = "";
    });
    const over = (on) => (event) => {
      if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
      event.preventDefault();
      document.body.classList.toggle("dropping", on);
    };
    addEventListener("dragenter", over(true));
    addEventListener("dragover", over(true));
    addEventListener("dragleave", (event) => !event.relatedTarget && over(false)(event));
    addEventListener("drop", (event) => {
      over(false)(event);
      const files = [...(event.dataTransfer?.files ?? [])];
      if (files.length) this.guard(this.segmentFiles(files));
    });
    drop.classList.toggle("off", !this.runs.length);
  }

  showPredictions() {
    const own = this.predictions.bodies.filter((body) => body.case === null || body.state === "sending" || body.case === undefined);
    find("#done-here").hidden = !own.length;
    const list = find("#predictions");
    fill(list, ...own.map((body) =>
      make("li", {}, make("button", { type: "button", "aria-current": body.id && body.id === this.body?.id && "true", onclick: () => this.guard(this.openPrediction(body)) },
        make("span", { class: "name" }, breakable(body.name), make("span", { class: `small ${body.state === "failed" ? "fault" : "muted"}` }, stateOf(body, duration)))),
        make("button", { type: "button", class: "quiet", "aria-label": `${isActive(body) ? "Cancel" : "Remove"} ${body.name}`, onclick: () => this.guard(this.endPrediction(body)) }, "×"))));
    if (this.body && this.body.state !== "done") {
      const now = this.predictions.bodies.find((body) => body === this.body || (body.id && body.id === this.body.id));
      if (now) {
        this.body = now;
        this.showProgress();
      }
    }
  }

  // --- opening and segmenting ---

  /** Begin something that replaces what is shown; the signal ends when something else does. */
  begin(entry, body) {
    this.opening?.abort();
    this.opening = new AbortController();
    if (this.correction?.on) this.correction.turn(false);
    Object.assign(this, { entry, body, correction: null, scores: null });
    this.scene.set(null); // nothing of the last image is left beside the next
    this.viewer.fixed = this.viewer.tool = null;
    this.cases?.mark(entry);
    this.showPredictions();
    return this.opening.signal;
  }

  async load(url, what, signal) {
    const word = make("p", {}, `Loading the ${what} …`);
    if (what === "image") this.viewer.say(word);
    const onProgress = (done, total) => (word.textContent = `Loading the ${what}: ${Math.round((100 * done) / total)} % of ${amount(total / 2 ** 20)} MiB`);
    return new Volume(await readNifti(url, { onProgress, signal }));
  }

  async openCase(entry) {
    const known = () => this.predictions.of(this.run?.id, entry.case, entry.image);
    const signal = this.begin(entry, known() ?? null);
    this.showResult();
    const above = path`/api/cases/${entry.case}/images/${entry.image}/`;
    let refused = null; // why there is no truth, which is said last
    const first = this.load(`${above}image.nii.gz`, "image", signal);
    const second = entry.has_labels && this.load(`${above}truth.nii.gz`, "truth", signal).catch((fault) => void (refused = fault));
    const image = await this.shown(first);
    if (signal.aborted) return;
    this.scene.set(image); // to be looked at while the truth is on its way
    const truth = await second;
    if (signal.aborted) return;
    if (truth) this.scene.put("truth", truth, this.data.labels);
    if (known()?.state === "done") await this.putMap(known(), signal); // it may have ended meanwhile
    else this.showResult();
    if (refused) throw refused;
  }

  async openPrediction(body) {
    const entry = body.case && this.cases?.every.find((e) => e.case === body.case && e.image === body.image);
    if (entry) return this.openCase(entry);
    const signal = this.begin(null, body);
    this.showResult();
    if (body.state !== "done") return this.showProgress();
    const image = await this.shown(this.load(path`/api/predictions/${body.id}/files/image.nii.gz`, "image", signal));
    if (signal.aborted) return;
    this.scene.set(image);
    await this.putMap(body, signal);
  }

  /** What is wrong with an image is said in its place, too. */
  async shown(promise) {
    try {
      return await promise;
    } catch (fault) {
      if (fault.name !== "AbortError") this.viewer.say(make("p", { class: "fault" }, fault.message));
      throw fault;
    }
  }

  async putMap(body, signal) {
    const map = await this.load(path`/api/predictions/${body.id}/files/map.nii.gz`, "class map", signal);
    if (signal.aborted) return;
    const run = this.runs.find((r) => r.id === body.run);
    this.body = body;
    this.scene.put("prediction", map, run.labels);
    this.correction = new Correction({
      scene: this.scene, viewer: this.viewer, body, classes: run.labels, saves: this.about.saves,
      say: (...word) => this.say(...word), onChange: (stale) => this.corrected(stale),
    });
    this.showResult();
    if (body.result.has_truth) await this.loadScores(signal);
  }

  async loadScores(signal) {
    const { body } = this;
    const found = await scoresOf(body.id);
    if (signal.aborted || body !== this.body) return;
    this.scores = found;
    this.showResult();
  }

  /** After a correction. stale: the map that is shown must be loaded again. */
  async corrected(stale) {
    const signal = this.opening.signal;
    if (stale) {
      const map = await this.load(path`/api/predictions/${this.body.id}/files/map.nii.gz`, "class map", signal);
      this.scene.maps.prediction.volume = map;
    }
    this.showResult();
    if (this.body.result.has_truth) await this.loadScores(signal);
  }

  async segmentCase() {
    const { entry } = this;
    const body = await this.predictions.startCase(this.run.id, entry.case, entry.image);
    if (this.entry !== entry) return;
    this.body = body;
    this.showResult();
  }

  async segmentFiles(files) {
    location.hash = "#look";
    for (const file of files) {
      const sent = this.predictions.startFile(this.run.id, file);
      this.begin(null, this.predictions.bodies[0]);
      this.showResult();
      this.showProgress();
      const sending = this.body;
      try {
        const body = await sent;
        if (this.body === sending) {
          this.body = body;
          this.showProgress();
        }
      } catch (fault) {
        if (this.body === sending) this.leave(fault.name === "AbortError" ? "Cancelled." : fault.message);
        throw fault;
      }
    }
  }

  ended(body) {
    if (this.body?.id !== body.id) return;
    if (body.state === "done") {
      if (!this.entry) this.guard(this.openPrediction(body));
      else if (this.scene.image) this.guard(this.putMap(body, this.opening.signal)); // else it is put when that is loaded
      return;
    }
    const sentence = body.state === "cancelled" ? "Cancelled." : body.message;
    if (body.state === "failed") this.say(`${body.name}: ${body.message}`);
    if (this.entry) {
      this.body = null;
      this.showResult();
    } else this.leave(sentence);
  }

  /** Nothing is shown any more but a sentence. */
  leave(sentence) {
    this.begin(null, null);
    this.viewer.say(make("p", {}, sentence));
    this.showResult();
  }

  async endPrediction(body) {
    const shown = body.id && body.id === this.body?.id && !isActive(body);
    await this.predictions.end(body);
    if (shown) this.leave("Removed.");
  }

  showProgress() {
    if (!this.body || this.body.state === "done") return;
    const content = isActive(this.body) ? progress(this.body, () => this.guard(this.endPrediction(this.body))) : make("p", {}, stateOf(this.body, duration));
    if (!this.entry) this.viewer.say(content);
    else if (this.going?.isConnected) fill(this.going, content); // the rest keeps its focus
    else this.showResult();
  }

  // --- right ---

  showResult() {
    const { body, entry, scene, run } = this;
    const place = find("#result");
    if (!body && !entry) return fill(place, make("section", { class: "muted" }, make("h2", {}, "Classes"), make("p", {}, "Classes, volumes and downloads of an image are shown here.")));
    const done = body?.state === "done" && scene.maps.prediction;
    const parts = [];
    const heading = make("section", {}, make("h1", { class: "title" }, breakable(entry?.image ?? body.name)));
    parts.push(heading);
    if (done) {
      const { confidence } = body.result;
      heading.append(make("p", { class: "muted small" }, `Segmented by ${this.runs.find((r) => r.id === body.run).model}. `,
        confidence === null ? "No foreground was found." : make("span", { title: ABOUT_CONFIDENCE }, `Mean probability of the classes shown: ${probability(confidence)}, no measure of error.`)));
    } else if (body && isActive(body) && entry) {
      this.going = make("div", {}, progress(body, () => this.guard(this.endPrediction(this.body))));
      heading.append(this.going);
    } else if (entry && run) heading.append(make("button", { type: "button", class: "primary wide", onclick: () => this.guard(this.segmentCase()) }, `Segment with ${run.model}`));
    const map = scene.maps.prediction ?? scene.maps.truth;
    if (map) parts.push(make("section", {}, legend(scene, { classes: map.classes, ...this.sizes(map), scores: done && this.scores?.classes, onFind: (c) => this.goToClass(c) }), done && this.scores ? scoreTable(this.scores) : null,
      done ? null : make("p", { class: "muted small" }, "Shown is the truth of the data set.")));
    if (done) {
      const worst = worstSlices(body.result, (slice) => this.correction.goTo(slice));
      if (worst) parts.push(make("section", {}, worst));
      parts.push(this.correction.panel, make("section", {}, downloads(body)));
    }
    const open = place.querySelector("details.scores")?.open;
    fill(place, ...parts);
    const details = place.querySelector("details.scores");
    if (details) details.open = Boolean(open);
  }

  sizes(map) {
    const { image } = this.scene;
    if (map === this.scene.maps.prediction) {
      const { pixels, ml, flat } = this.body.result;
      return flat || !ml ? { sizes: pixels, unit: "pixels" } : { sizes: ml, unit: "ml" };
    }
    map.counts ??= counted(map);
    if (image.flat) return { sizes: map.counts, unit: "pixels" };
    const [a, b, c] = image.affine.map((row) => row.slice(0, 3));
    const voxel = Math.abs(a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0]) + a[2] * (b[0] * c[1] - b[1] * c[0])) / 1000;
    return { sizes: Object.fromEntries(Object.entries(map.counts).map(([name, n]) => [name, n * voxel])), unit: "ml" };
  }

  goToClass({ id }) {
    const { scene } = this;
    const map = scene.maps.prediction && scene.source !== "truth" ? scene.maps.prediction : (scene.maps.truth ?? scene.maps.prediction);
    const found = map && middleOf(map, id, this.viewer.panes[0]?.plane.slice ?? 2);
    if (found) scene.moveTo(found);
  }

  // --- the whole page ---

  route() {
    const compare = location.hash === "#compare";
    find("#look").hidden = compare;
    find("#compare").hidden = !compare;
    for (const link of document.querySelectorAll("nav a")) link.toggleAttribute("aria-current", link.hash === (compare ? "#compare" : "#look"));
    if (compare) this.compare.load();
  }

  pressed(event) {
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "checkbox" && event.target.type !== "range") return;
    if (document.querySelector("dialog[open]")) return;
    if (this.correction?.pressed(event)) return event.preventDefault();
    if (event.ctrlKey || event.metaKey || event.altKey || find("#look").hidden) return;
    if (event.key === "n") this.cases?.step(1);
    if (event.key === "p") this.cases?.step(-1);
  }
}

async function begin() {
  try {
    const [about, runs, evaluations] = await Promise.all([ask("/api/about"), ask("/api/runs"), ask("/api/evaluations")]);
    window.sampeft = new Page(about, runs, about.data ? await ask("/api/cases") : null, evaluations);
  } catch (fault) {
    fill(find("#messages"), make("div", { class: "message fault" }, fault.message));
    throw fault;
  }
}

begin();
