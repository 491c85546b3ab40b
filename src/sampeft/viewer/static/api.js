// Requests to the server; whatever goes wrong comes out as one sentence.

export class Refusal extends Error {
  /** status: of the answer, 0 when there was none. */
  constructor(sentence, status = 0) {
    super(sentence);
    this.status = status;
  }
}

const SILENT = "the server does not answer; is `sampeft serve` still running?";

const sentenceOf = (text, status) => {
  try {
    return JSON.parse(text).error ?? `the server answered ${status}`;
  } catch {
    return `the server answered ${status}`;
  }
};

/** The Response, when it is a good one. */
export async function answer(path, options) {
  let found;
  try {
    found = await fetch(path, options);
  } catch (fault) {
    if (fault.name === "AbortError") throw fault;
    throw new Refusal(SILENT);
  }
  if (!found.ok) throw new Refusal(sentenceOf(await found.text(), found.status), found.status);
  return found;
}

export async function ask(path, options) {
  const found = await answer(path, options);
  return found.status === 204 ? null : found.json();
}

export const send = (path, body, method = "POST") =>
  ask(path, { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

export const remove = (path) => ask(path, { method: "DELETE" });

/** POST a form; onProgress(0..1) while it is sent. signal: aborts it. */
export function upload(path, form, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onload = () =>
      request.status < 300
        ? resolve(JSON.parse(request.responseText))
        : reject(new Refusal(sentenceOf(request.responseText, request.status), request.status));
    // A server that refuses a large body by its header closes the connection, which the browser shows as a failure.
    request.onerror = () => reject(new Refusal("the image could not be sent; it may be larger than the server takes"));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal?.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

export const path = (strings, ...parts) =>
  strings.reduce((whole, piece, n) => whole + encodeURIComponent(parts[n - 1]) + piece);
