/** Builds elements; text is always set as text, so no caption is parsed as markup. */

const SVG = "http://www.w3.org/2000/svg";

/** The element with an id. */
export const at = (id) => document.getElementById(id);

/** An element with attributes and children; a child that is null is left out. */
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** A pair's picture, or its first letter where there is none. */
export function picture(pair, alt = "") {
  if (pair.picture) return el("img", { src: pair.picture, alt, class: "pic" });
  return el("span", { class: "pic blank", "aria-hidden": "true" }, firstLetter(nameOf(pair)));
}

/** The first letter, digit or picture of a name: the first half of a pair of code units would be none. */
const firstLetter = (name) => (name.match(/[\p{L}\p{N}\p{Extended_Pictographic}]/u)?.[0] || "?").toUpperCase();

/** What a pair is called. */
export const nameOf = (pair) => pair.caption || pair.id;

/** The name within a sentence: shortened, and isolated from the direction of the text around it. */
export const called = (pair) => isolated(shortened(nameOf(pair)));

const LONGEST = 80;
const shortened = (text) => (text.length > LONGEST ? `${[...text].slice(0, LONGEST).join("").trimEnd()}…` : text);
const isolated = (text) => `\u2068${text}\u2069`;

/** Show an element with a text, or hide it. */
export function showText(node, text) {
  node.textContent = text || "";
  node.hidden = !text;
}
