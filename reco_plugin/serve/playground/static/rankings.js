/** Both rankings side by side, and the changes between them. */

import { at, el, nameOf, picture, svg, showText } from "./dom.js";
import { number, ordinal, place } from "./words.js";

/** Draw both rankings; `fresh` holds ids of pairs that were just added. */
export function drawRankings(answer, fresh) {
  const { plain_ranking: before, refined_ranking: after, depth } = answer;
  const nothing = !before.length;
  at("rankings").hidden = nothing;
  showText(at("rankings-none"), nothing && (answer.ranking_error
    ? `There is nothing to rank, since the memory does not answer: ${answer.ranking_error}`
    : "There is nothing to rank: the memory is empty."));
  const what = answer.by === "image" ? "pictures" : "captions";
  at("ranked-what").textContent = `of the ${what} in the memory, by similarity to the query`;
  at("refined-title").textContent = title(answer);
  at("plain").replaceChildren(...before.map((pair) => row(pair, fresh, leaving(pair, after.length, depth))));
  at("refined").replaceChildren(...after.map((pair) => row(pair, fresh, moved(pair, depth))));
  drawMoves(before, after);
  at("no-pictures").hidden = nothing || [...answer.used, ...before, ...after].some((pair) => pair.picture);
}

function title(answer) {
  return answer.degraded || !answer.refined ? "Not refined" : "Refined query";
}

function row(pair, fresh, mark) {
  return el("li", { "data-id": pair.id },
    picture(pair),
    el("div", { class: "what" },
      el("p", { class: "caption", title: nameOf(pair) }, nameOf(pair)),
      el("p", { class: "figures" },
        el("span", { class: "similarity" }, number(pair.similarity)),
        mark,
        fresh.has(pair.id) ? el("span", { class: "fresh" }, "added") : null)));
}

/** How a pair got to its place in the refined ranking. */
function moved(pair, depth) {
  const { rank_plain: from, rank_refined: to } = pair;
  if (from === to) return el("span", { class: "mark same" }, spoken("same place"), symbol("="));
  if (from === null) return el("span", { class: "mark up" }, spoken("up "), symbol("▲ "), `from ${far(depth)}`);
  const up = from > to;
  return el("span", { class: `mark ${up ? "up" : "down"}` },
    spoken(up ? "up " : "down "), symbol(up ? "▲ " : "▼ "), `${Math.abs(from - to)}`, spoken(` from ${place(from, depth)}`));
}

/** Where a pair of the plain ranking went, if it is not on the other list. */
function leaving(pair, shown, depth) {
  const to = pair.rank_refined;
  if (to !== null && to <= shown) return null;
  return el("span", { class: "mark down" }, spoken("down "), symbol("▼ "), to === null ? `to ${far(depth)}` : `to ${ordinal(to)}`);
}

/** Somewhere beyond the depth: short, since it stands in each row of a narrow column. */
const far = (depth) => `${depth}+`;

const spoken = (text) => el("span", { class: "unseen" }, text);
const symbol = (text) => el("span", { "aria-hidden": "true" }, text);

/** Lines from the old places to the new ones, in units of a row; stubs where one of the two is not on the page. */
function drawMoves(before, after) {
  const rows = Math.max(before.length, after.length, 1);
  const line = (kind, id, d) => svg("path", { class: kind, "data-id": id, d });
  const arrivals = after.map(({ rank_plain: from, rank_refined: to, id }) => {
    const y = to - 0.5;
    if (from === null || from > before.length) return line("up", id, `M.62 ${y + 0.42}C.66 ${y + 0.1} .8 ${y} 1 ${y}`);
    const start = from - 0.5;
    return line(from === to ? "same" : from > to ? "up" : "down", id, `M0 ${start}C.5 ${start} .5 ${y} 1 ${y}`);
  });
  const departures = before.filter(({ rank_refined: to }) => to === null || to > after.length).map(({ rank_plain, id }) => {
    const y = rank_plain - 0.5;
    return line("down", id, `M0 ${y}C.2 ${y} .34 ${y + 0.1} .38 ${y + 0.42}`);
  });
  const drawing = at("moves");
  at("rankings").style.setProperty("--rows", rows);
  drawing.setAttribute("viewBox", `0 0 1 ${rows}`);
  drawing.replaceChildren(...departures, ...arrivals);
}

/** Let a pair stand out everywhere while the pointer is on it. */
export function linkPairs(area) {
  const mark = (id) => {
    for (const node of area.querySelectorAll("[data-id]")) node.classList.toggle("linked", node.dataset.id === id);
  };
  area.addEventListener("pointerover", (event) => mark(event.target.closest("[data-id]")?.dataset.id));
  area.addEventListener("pointerleave", () => mark(null));
}
