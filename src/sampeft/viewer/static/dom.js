// Elements of the page by selector, and new ones by name, attributes and children.

export const find = (selector, above = document) => above.querySelector(selector);

/** make("button", {class: "quiet", onclick: f, "aria-label": "Undo"}, "Undo"): properties where there are some, else attributes. */
export function make(name, attributes = {}, ...children) {
  const found = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (key.startsWith("on")) found.addEventListener(key.slice(2), value);
    else found.setAttribute(key, value === true ? "" : value);
  }
  found.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return found;
}

/** Everything inside a place, anew. */
export function fill(place, ...children) {
  place.replaceChildren(...children.filter((child) => child !== null && child !== undefined && child !== false));
}

export const colour = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;

/** 1234567 -> "1,234,567"; 12.345 -> "12.3"; 0.123 -> "0.12"; 0.001 -> "< 0.01". */
export function amount(value) {
  if (value > 0 && value < 0.005) return "< 0.01";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 2 : value < 100 ? 1 : 0 });
}

export function duration(seconds) {
  if (seconds < 1) return "a moment";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** A value of a score as tables show it; null is none, "inf" an infinite distance. */
export function score(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  return typeof value === "number" ? value.toFixed(digits) : "∞";
}

/** A probability as it is shown: never as a certainty, which rounding would make of 0.997. */
export const probability = (value) => (value >= 0.995 ? "> 0.99" : value.toFixed(2));
export const ABOUT_CONFIDENCE = "mean probability of the class shown, over the foreground; no measure of error";

/** A name that may break after its separators, so that it does not within a word. */
export function breakable(name) {
  const found = document.createDocumentFragment();
  for (const part of name.split(/(?<=[_.\-/])/)) found.append(part, document.createElement("wbr"));
  return found;
}

/** Names of classes as people read them. */
export const readable = (name) => name.replaceAll("_", " ");
