/** The query, how far it moved, and the pairs that moved it. */

import { at, el, nameOf, picture, svg, showText } from "./dom.js";
import { notThis } from "./feedback.js";
import { degrees, number, percent, presenceWords, whyUnmoved } from "./words.js";

const narrow = matchMedia("(max-width: 560px)");
const shownAtFirst = () => (narrow.matches ? 6 : 12);
let all = false;

/** Draw the query and what was retrieved for it from `pairs`; `fresh` holds ids of pairs that were just added. */
export function drawNeighbours(query, answer, refine, pairs, fresh) {
  at("query").replaceChildren(...queryParts(query, answer));
  const all = Math.max(answer.used.reduce((sum, pair) => sum + pair.weight, 0), 1e-12);
  at("retrieved").replaceChildren(...answer.used.map((pair) => card(pair, pair.weight / all, fresh, query)));
  at("retrieved").hidden = !answer.used.length;
  showText(at("retrieved-none"), whyUnmoved(answer, refine, pairs));
  showText(at("why"), answer.degraded ? null : answer.why || null);
  fold(answer.used.length);
}

function queryParts(query, answer) {
  const shown = query.image
    ? el("img", { src: query.image.data, alt: `Query: ${query.image.name}`, class: "shown-query" })
    : el("p", { class: "shown-query" }, query.text);
  shown.addEventListener("error", () => shown.replaceWith(el("p", { class: "shown-query" }, query.image.name))); // a format that the browser cannot draw
  const angle = degrees(answer.moved);
  const words = el("p", {}, el("b", {}, `moved by ${Math.round(angle)}°`), el("br"),
    el("span", { class: "soft" }, `cosine distance ${answer.moved.toFixed(3)}`));
  if (answer.presence !== null) words.append(el("br"), el("span", { class: "soft", id: "presence" }, presenceWords(answer.presence)));
  const parts = [shown, dial(angle), words];
  if (answer.truncated) parts.push(el("p", { class: "note" }, "The text is longer than the encoder reads; its end was cut off."));
  return parts;
}

/** Two vectors and the angle between them. */
function dial(angle) {
  const turn = (angle * Math.PI) / 180;
  const [length, arc] = [50, 24];
  const from = angle > 95 ? 58 : 8; // wide angles need room on the left
  const end = (radius) => [from + radius * Math.cos(turn), 56 - radius * Math.sin(turn)];
  const [x, y] = end(length);
  const [ax, ay] = end(arc);
  return svg("svg", { viewBox: `0 0 ${from + 58} 64`, class: "dial", "aria-hidden": "true" },
    svg("path", { class: "arc", d: `M${from + arc} 56A${arc} ${arc} 0 0 0 ${ax} ${ay}L${from} 56z` }),
    svg("path", { class: "plain", d: `M${from} 56H${from + length}` }),
    svg("path", { class: "moved", d: `M${from} 56L${x} ${y}` }),
    svg("circle", { cx: from, cy: 56, r: 2.5 }));
}

/** A retrieved pair; `share`: of the weight of all retrieved pairs. */
function card(pair, share, fresh, query) {
  const bar = el("span", { class: "bar", "aria-hidden": "true" }, el("i"));
  bar.firstChild.style.inlineSize = `${100 * share}%`;
  const node = el("li", { "data-id": pair.id },
    picture(pair),
    bar,
    el("p", { class: "weight" }, el("b", {}, percent(share)), " of the weight"),
    el("p", { class: "caption", title: nameOf(pair) }, nameOf(pair)),
    el("p", { class: "figures" }, `similarity ${number(pair.similarity)}`, el("br"), `agrees by ${pair.reliability.toFixed(2)}`));
  if (fresh.has(pair.id)) node.append(el("span", { class: "fresh" }, "added"));
  node.append(notThis(pair, query));
  return node;
}

function fold(count) {
  const button = at("retrieved-more");
  const few = shownAtFirst();
  const list = at("retrieved");
  const apply = () => {
    [...list.children].forEach((node, place) => { node.hidden = !all && place >= few; });
    button.textContent = all ? `Show the nearest ${few}` : `Show all ${count}`;
    button.setAttribute("aria-expanded", String(all));
  };
  button.hidden = count <= few;
  button.onclick = () => { all = !all; apply(); };
  apply();
}
