// Evaluations side by side: means with intervals, the cases worst first, and the reports.

import { ask, path } from "/api.js";
import { fill, make, readable, score } from "/dom.js";

/** openCase: called with the id of a case whose row is pressed; knows: whether there is such a case here. */
export class Compare {
  constructor(place, evaluations, { openCase, knows, say }) {
    Object.assign(this, { place, evaluations, openCase, knows, say, metric: null });
    const first = evaluations.filter((e) => !e.oracle).slice(0, 2);
    this.chosen = new Set((first.length === 2 ? first : evaluations.slice(0, 2)).map((e) => e.id));
    this.results = make("div", { class: "results" });
    const items = evaluations.map((e) => {
      const box = make("input", { type: "checkbox", value: e.id });
      box.checked = this.chosen.has(e.id);
      box.addEventListener("change", () => {
        if (box.checked) this.chosen.add(e.id);
        else this.chosen.delete(e.id);
        this.load();
      });
      const dsc = e.headline.dsc;
      return make("li", {}, make("label", {}, box, make("span", { class: "name" }, make("b", {}, e.model, e.oracle ? " (oracle)" : ""), make("span", { class: "muted small" }, e.id, make("br"), `${e.data} ${e.split}, ${e.cases} cases`, dsc ? `, DSC ${interval(dsc)}` : ""))),
        e.report && make("button", { type: "button", class: "quiet small", onclick: () => this.report(e) }, "Report"));
    });
    fill(place, make("aside", { class: "side", "aria-label": "Evaluations" }, make("section", {}, make("h2", {}, "Evaluations"),
      evaluations.length ? make("ul", { class: "list checks" }, ...items)
        : make("p", { class: "muted" }, "None here. Run `sampeft evaluate`, or give folders of evaluations with --evals."))), this.results);
  }

  /** Show what is chosen; called when the page is opened. */
  async load() {
    const ids = this.evaluations.map((e) => e.id).filter((id) => this.chosen.has(id));
    if (ids.length < 2) return fill(this.results, make("div", { class: "card" }, this.evaluations.length < 2 ? "Two evaluations of the same cases are needed to compare." : "Choose two or more evaluations."));
    const asked = (this.asked = ids.join("\n"));
    if (this.loaded === asked) return;
    fill(this.results, make("div", { class: "card" }, "Comparing …"));
    try {
      const found = await ask(`/api/compare?${new URLSearchParams(ids.map((id) => ["ids", id]))}`);
      if (asked !== this.asked) return;
      this.loaded = asked;
      this.found = found;
      if (!(this.metric in found.metrics)) this.metric = Object.keys(found.metrics)[0];
      this.show();
    } catch (fault) {
      if (asked !== this.asked) return;
      this.loaded = null;
      fill(this.results, make("div", { class: "card fault" }, fault.message));
    }
  }

  /** Methods, then oracles, which know the truth. */
  get columns() {
    return [...this.found.methods, ...this.found.oracles];
  }

  name(id) {
    const { model, oracle } = this.evaluations.find((e) => e.id === id);
    const same = this.columns.filter((other) => this.evaluations.find((e) => e.id === other).model === model);
    return `${model}${oracle ? " (oracle)" : ""}${same.length > 1 ? ` (${id})` : ""}`;
  }

  show() {
    const { found, columns } = this;
    const metric = found.metrics[this.metric];
    const digits = Object.values(metric.rows).some((row) => Object.values(row.scores).some((s) => s.mean > 1)) ? 2 : 3;
    const choice = make("div", { class: "choices", role: "group", "aria-label": "Metric" }, ...Object.entries(found.metrics).map(([key, m]) =>
      make("button", { type: "button", "aria-pressed": String(key === this.metric), onclick: () => { this.metric = key; this.show(); } }, m.title)));
    const head = (first) => make("thead", {}, make("tr", {}, make("th", {}, first), ...columns.map((id) => make("th", { class: "number" }, this.name(id)))));
    const rows = Object.entries(metric.rows).map(([name, row]) => make("tr", { class: row.is_mean ? "mean" : null }, make("th", { scope: "row" }, readable(name)),
      ...columns.map((id) => make("td", { class: `number${row.best.includes(id) ? " best" : ""}` }, interval(row.scores[id], digits, true)))));
    const few = Object.values(metric.rows).some((row) => row.too_few);
    const tests = metric.tests.filter((t) => metric.rows[t.row]?.is_mean).map((t) => make("li", {}, `${this.name(t.a)} against ${this.name(t.b)}: ${t.verdict}`));
    const cases = metric.by_case.map((row) => {
      const known = this.knows(row.case);
      return make("tr", {}, make("th", { scope: "row" }, known ? make("button", { type: "button", class: "link", onclick: () => this.openCase(row.case) }, row.case) : row.case),
        ...columns.map((id) => make("td", { class: "number" }, bar(row.mean[id], metric), score(row.mean[id], digits))));
    });
    const table = (label, ...parts) => make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, make("table", { class: "grid" }, ...parts));
    fill(this.results, make("div", { class: "bar" }, make("h1", {}, "Comparison"), Object.keys(found.metrics).length > 1 ? choice : null),
      ...found.notes.map((note) => make("p", { class: "muted" }, note)),
      make("h2", {}, `${metric.title}, mean of ${found.cases.length} cases [95 % interval]`), table("Means of classes", head("Class"), make("tbody", {}, ...rows)),
      make("p", { class: "muted small" }, `Bold: best, where a paired test tells it from the others.${few ? " Of some classes there are too few cases to conclude." : ""} Protocol ${found.protocol}: ${found.policy}. Intervals: ${found.interval}.`),
      tests.length ? make("ul", { class: "plain" }, ...tests) : null,
      make("h2", {}, "Cases, worst first"), table("Cases", head("Case"), make("tbody", {}, ...cases)),
      make("div", { class: "bar" }, ...columns.filter((id) => found.reports[id]).map((id) => make("button", { type: "button", onclick: () => this.report(this.evaluations.find((e) => e.id === id)) }, `Report of ${this.name(id)}`))));
  }

  /** The report in a frame without scripts, above the page. */
  report(evaluation) {
    const address = path`/api/evaluations/${evaluation.id}/report.html`;
    const dialog = make("dialog", { class: "report", "aria-label": `Report of ${evaluation.model}` },
      make("div", { class: "bar" }, make("b", {}, evaluation.model), make("a", { class: "button", href: address, target: "_blank", rel: "noopener" }, "In a new tab"), make("button", { type: "button", onclick: () => dialog.close() }, "Close")),
      make("iframe", { sandbox: "", src: address, title: `Report of ${evaluation.model}` }));
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  }
}

function interval({ mean, low, high, n_infinite: infinite }, digits = 3, faint = false) {
  if (mean === null || mean === undefined) return "not scored";
  const text = infinite ? "∞" : score(mean, digits);
  if (low === null || low === undefined || typeof low !== "number") return text;
  const range = ` [${score(low, digits)}, ${score(high, digits)}]`;
  if (!faint) return text + range;
  const found = document.createDocumentFragment();
  found.append(text, make("span", { class: "muted small" }, range));
  return found;
}

/** A small bar of a share; nothing for distances. */
function bar(value, metric) {
  if (metric.better !== "higher" || typeof value !== "number" || value > 1) return null;
  return make("span", { class: "share", "aria-hidden": true }, make("i", { style: `width:${Math.max(0, 100 * value)}%` }));
}
