// Segmentations of this browser tab: sent, followed until they end, listed; their ids are kept for a reload.

import { ask, path, remove, upload } from "/api.js";
import { probability } from "/dom.js";

const KEPT = "sampeft.predictions";
const POLL_MS = 400;
const MOST_IDS = 200; // that the server answers at once
const ACTIVE = ["queued", "running"];

/** The order of review: those without any foreground, then by rising confidence, then what is not done. */
export const reviewRank = (body) => (body?.state === "done" ? (body.result.confidence ?? -1) : Infinity);
export const isActive = (body) => ACTIVE.includes(body.state) || body.state === "sending";

export class Predictions extends EventTarget {
  constructor() {
    super();
    this.bodies = []; // as the server describes them, newest first; {state: "sending"} while an image is sent
    this.ids = JSON.parse(sessionStorage.getItem(KEPT) ?? "[]");
  }

  /** The newest segmentation of an image of the data set by a run. */
  of(run, caseId, image) {
    return this.bodies.find((b) => b.run === run && b.case === caseId && b.image === image && b.state !== "cancelled" && b.state !== "failed");
  }

  async reload() {
    if (this.ids.length) await this.refresh();
    this.follow();
  }

  /** Segment an image of the data set; the body of the answer. */
  async startCase(run, caseId, image) {
    const form = new FormData();
    form.append("run", run);
    form.append("case", caseId);
    form.append("image", image);
    return this.add(await ask("/api/predictions", { method: "POST", body: form }));
  }

  /** Segment a file. */
  async startFile(run, file) {
    const form = new FormData();
    form.append("run", run);
    form.append("file", file);
    const stop = new AbortController();
    const sending = { state: "sending", name: file.name, progress: 0, run, cancel: () => stop.abort() };
    this.bodies.unshift(sending);
    this.changed();
    try {
      const body = await upload("/api/predictions", form, (share) => {
        sending.progress = share;
        this.changed();
      }, stop.signal);
      this.bodies = this.bodies.filter((b) => b !== sending);
      return this.add(body);
    } catch (fault) {
      this.bodies = this.bodies.filter((b) => b !== sending);
      this.changed();
      throw fault;
    }
  }

  add(body) {
    this.ids.unshift(body.id);
    this.bodies.unshift(body);
    this.keep();
    this.follow();
    return body;
  }

  /** Cancel one that waits or runs; forget one that has ended. */
  async end(body) {
    if (body.state === "sending") return body.cancel();
    await remove(path`/api/predictions/${body.id}`);
    if (!isActive(body)) {
      this.ids = this.ids.filter((id) => id !== body.id);
      this.bodies = this.bodies.filter((b) => b.id !== body.id);
      this.keep();
    } else await this.refresh();
  }

  keep() {
    sessionStorage.setItem(KEPT, JSON.stringify(this.ids));
    this.changed();
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }

  /** Ask the server how they are. */
  async refresh() {
    const found = new Map();
    const asked = [...this.ids]; // more may be added meanwhile
    for (let n = 0; n < asked.length; n += MOST_IDS) {
      const query = new URLSearchParams(asked.slice(n, n + MOST_IDS).map((id) => ["ids", id]));
      for (const body of await ask(`/api/predictions?${query}`)) found.set(body.id, body);
    }
    const ended = this.bodies.filter((old) => isActive(old) && found.has(old.id) && !isActive(found.get(old.id)));
    const gone = new Set(asked.filter((id) => !found.has(id)));
    const here = new Map(this.bodies.map((b) => [b.id, b]));
    this.ids = this.ids.filter((id) => !gone.has(id) && (found.has(id) || here.has(id)));
    this.bodies = [...this.bodies.filter((b) => b.state === "sending"), ...this.ids.map((id) => found.get(id) ?? here.get(id))];
    this.keep();
    for (const old of ended) this.dispatchEvent(new CustomEvent("ended", { detail: found.get(old.id) }));
  }

  async follow() {
    if (this.following) return;
    this.following = true;
    while (this.bodies.some((b) => ACTIVE.includes(b.state))) {
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      await this.refresh().catch((fault) => this.dispatchEvent(new CustomEvent("fault", { detail: fault })));
    }
    this.following = false;
  }
}

/** What is said of one beside its name. */
export function stateOf(body, duration) {
  if (body.state === "sending") return `sending, ${Math.round(100 * body.progress)} %`;
  if (body.state === "queued") return body.waiting_before ? `waits for ${body.waiting_before}` : "waits";
  if (body.state === "running") {
    const left = body.eta_s === null ? "" : `, ${duration(body.eta_s)} left`;
    return body.progress < 0.02 && body.message ? body.message : `${Math.round(100 * body.progress)} %${left}`;
  }
  if (body.state === "failed") return body.message;
  if (body.state === "done") return body.result.confidence === null ? "no foreground found" : `mean probability ${probability(body.result.confidence)}`;
  return body.state;
}
