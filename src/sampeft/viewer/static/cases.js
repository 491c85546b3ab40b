// The images of the data set on the left: search, split, order, next and previous.

import { ABOUT_CONFIDENCE, breakable, fill, make, probability } from "/dom.js";
import { reviewRank } from "/predictions.js";

export class Cases {
  /** body: of /api/cases. open: called with {case, image, has_labels} of the one that is chosen. */
  constructor(place, body, predictions, open) {
    Object.assign(this, { place, predictions, open, split: "", text: "", order: "listed", shown: null });
    this.run = null;
    this.every = body.cases.flatMap((found) =>
      found.images.map((image) => ({ case: found.id, image: image.id, has_labels: image.has_labels, splits: found.splits })),
    );
    const search = make("input", { type: "search", placeholder: "Search", "aria-label": "Search cases" });
    search.addEventListener("input", () => this.set({ text: search.value.toLowerCase() }));
    const split = make("select", { "aria-label": "Split" }, make("option", { value: "" }, `all (${this.every.length})`),
      ...Object.keys(body.splits).map((name) => make("option", { value: name }, name)));
    split.addEventListener("change", () => this.set({ split: split.value }));
    const order = make("select", { "aria-label": "Order" }, make("option", { value: "listed" }, "as listed"), make("option", { value: "confidence" }, "least confident first"));
    order.addEventListener("change", () => this.set({ order: order.value }));
    this.list = make("ul", { class: "list", "aria-label": "Cases" });
    this.count = make("span", { class: "muted small" });
    const step = (by, label, sign) => make("button", { type: "button", class: "quiet", "aria-label": label, title: `${label} (${sign})`, onclick: () => this.step(by) }, by < 0 ? "‹" : "›");
    this.all = make("button", { type: "button", class: "quiet small wide", title: "Segment the images that are listed, so that they can be put in order", onclick: () => this.everyOne() }, "Segment all that are listed");
    place.hidden = false;
    fill(place, make("div", { class: "bar" }, make("h2", {}, body.name), this.count, step(-1, "Previous case", "p"), step(1, "Next case", "n")),
      search, make("div", { class: "pair" }, split, order), this.list, this.all);
    predictions.addEventListener("change", () => this.later());
    this.show();
  }

  set(changes) {
    Object.assign(this, changes);
    this.show();
  }

  /** Those that the search finds, in order. */
  get found() {
    const found = this.every.filter((entry) =>
      (!this.split || entry.splits.includes(this.split)) && `${entry.case} ${entry.image}`.toLowerCase().includes(this.text));
    if (this.order === "listed") return found;
    const rank = (entry) => reviewRank(this.predictions.of(this.run, entry.case, entry.image));
    return found.map((entry) => [rank(entry), entry]).sort((a, b) => (a[0] === b[0] ? 0 : a[0] - b[0])).map(([, entry]) => entry);
  }

  step(by) {
    const found = this.found;
    if (!found.length) return;
    const at = found.findIndex((entry) => entry === this.shown);
    const next = at < 0 ? (by > 0 ? 0 : found.length - 1) : (at + by + found.length) % found.length;
    this.open(found[next]);
  }

  mark(entry) {
    this.shown = entry;
    this.show();
    this.list.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  }

  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.show(), 100);
  }

  show() {
    const found = this.found;
    const at = found.indexOf(this.shown);
    this.count.textContent = at >= 0 ? `${at + 1} of ${found.length}` : `${found.length}`;
    this.all.hidden = !this.run;
    const focused = document.activeElement?.dataset?.entry;
    fill(this.list, ...found.slice(0, 2000).map((entry) => {
      const done = this.predictions.of(this.run, entry.case, entry.image);
      const confidence = done?.state === "done" ? done.result.confidence : undefined;
      const badge = confidence === null ? "none" : confidence === undefined ? "…" : probability(confidence);
      const second = entry.image === entry.case ? null : make("span", { class: "muted small" }, breakable(entry.case));
      return make("li", {}, make("button", { type: "button", "data-entry": entry.image, "aria-current": entry === this.shown && "true", onclick: () => this.open(entry) },
        make("span", { class: "name" }, breakable(entry.image), " ", second),
        done && make("span", { class: "badge", title: ABOUT_CONFIDENCE }, badge),
        entry.has_labels && make("span", { class: "badge truth", title: "has a truth" }, "truth")));
    }), found.length ? null : make("li", { class: "muted" }, "No case is called so."));
    if (focused) this.list.querySelector(`[data-entry="${CSS.escape(focused)}"]`)?.focus();
  }

  /** Segment those listed that are not yet, two at a time in the queue. */
  async everyOne() {
    const run = this.run;
    this.all.disabled = true;
    try {
      for (const entry of this.found.filter((e) => !this.predictions.of(run, e.case, e.image))) {
        while (this.predictions.bodies.filter((b) => ["queued", "running"].includes(b.state)).length > 1)
          await new Promise((resolve) => this.predictions.addEventListener("change", resolve, { once: true }));
        await this.predictions.startCase(run, entry.case, entry.image);
      }
    } finally {
      this.all.disabled = false;
    }
  }
}
