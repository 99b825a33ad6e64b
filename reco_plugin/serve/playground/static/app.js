/** The page: it sends the query, sends it again when an option changes, and shows the answer. */

import { compare, examples, model, ServiceError, useKey } from "./api.js";
import { at, called, el, nameOf, showText } from "./dom.js";
import { wireFeedback } from "./feedback.js";
import { accept, read } from "./images.js";
import { freshIds, offerQueryImage, wireMemory } from "./memory.js";
import { drawNeighbours } from "./neighbours.js";
import { drawRankings, linkPairs } from "./rankings.js";
import { showKeyField, countPairs, degradedWords, summary, errorText } from "./words.js";

const SETTLE_MS = 150; // after the last step of the slider
const stacked = matchMedia("(max-width: 899px)"); // as in the style sheet
let image = null;
let shownQuery = null;
let pendingQuery = null;
let running = null;
let served = null;
let later = 0;

function queryOf() {
  const text = at("text").value.trim();
  return image ? { image } : text ? { text } : null;
}

function options() {
  const picked = (name) => document.querySelector(`input[name=${name}]:checked`).value;
  const choice = (name) => ({ on: true, off: false })[picked(name)] ?? null;
  return {
    k: Number(at("k").value),
    gate: choice("gate"),
    coverage: picked("coverage") ? Number(picked("coverage")) : null,
    refine: choice("refine"),
    input_type: picked("side"),
    by: at("by").value || null,
  };
}

/** Send a new query. If the answer is below the form, scroll to it. */
async function search(query, first = "") {
  await run(query, first);
  if (shownQuery === query && stacked.matches) at("answer").scrollIntoView({ block: "start" });
}

/** Send a query; `first` comes before the summary of the answer. */
async function run(query, first = "") {
  clearTimeout(later);
  running?.abort();
  const mine = new AbortController();
  running = mine;
  pendingQuery = query;
  busy(true);
  showText(at("problem"), null);
  showText(at("feedback-problem"), null);
  const how = options();
  const input = query.image ? { image: query.image.data } : { text: query.text };
  try {
    const { data, timing } = await compare({ input, ...how }, mine.signal);
    if (running !== mine) return;
    shownQuery = query;
    show(query, data, how, timing, first);
  } catch (error) {
    if (error.name !== "AbortError") fail(error);
  } finally {
    if (running === mine) { running = pendingQuery = null; busy(false); }
  }
}

function show(query, answer, how, timing, first) {
  const fresh = freshIds();
  at("empty").hidden = true;
  at("results").hidden = false;
  at("answer").classList.toggle("is-degraded", Boolean(answer.degraded));
  showText(at("degraded"), answer.degraded && degradedWords(answer.degraded));
  drawNeighbours(query, answer, how.refine, served?.memory.pairs, fresh);
  drawRankings(answer, fresh);
  const took = Object.entries(timing).map(([step, ms]) => `${step} ${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`);
  at("status").replaceChildren(`${first} ${summary(answer)}`.trim(), el("span", { class: "took", "aria-hidden": "true" }, took.join(" · ")));
}

function fail(error) {
  if (!(error instanceof ServiceError)) console.error(error);
  showText(at("problem"), error instanceof ServiceError ? errorText(error) : "The page failed to show this answer.");
  showKeyField(error);
  at("results").hidden = true;
  at("empty").hidden = false;
  showText(at("degraded"), null);
  at("status").textContent = "";
  shownQuery = null;
}

function busy(is) {
  at("answer").setAttribute("aria-busy", String(is));
  document.body.classList.toggle("busy", is);
}

/** Send the pending or shown query again after `wait` ms. Returns whether there is one. */
function rerun(wait = 0, words = "") {
  clearTimeout(later);
  if (!(pendingQuery || shownQuery)) return false;
  later = setTimeout(() => { if (pendingQuery || shownQuery) void run(pendingQuery || shownQuery, words); }, wait);
  return true;
}

function setImage(next) {
  image = next;
  at("chosen").hidden = !next;
  at("drop").hidden = Boolean(next);
  offerQueryImage(Boolean(next));
  if (!next) {
    at("chosen-picture").removeAttribute("src");
    return;
  }
  at("text").value = "";
  at("chosen-picture").hidden = false;
  at("chosen-picture").src = next.data;
  at("chosen-name").textContent = next.name;
}

async function take(file, others = 0) {
  try {
    searchByImage(await read(file), others ? `Only ${file.name} was taken, the first of ${others + 1} files.` : "");
  } catch (error) {
    fail(error);
  }
}

function searchByImage(next, first = "") {
  const focused = document.activeElement === at("file");
  setImage(next);
  if (focused) at("chosen-remove").focus(); // the focused element is hidden now
  void search({ image: next }, first);
}

function removeImage() {
  setImage(null);
  at("text").focus();
}

function wireQuery() {
  at("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const query = queryOf();
    if (query) void search(query);
    else {
      showText(at("problem"), "Write a text or choose an image first.");
      at("text").focus();
    }
  });
  at("text").addEventListener("input", () => { if (image && at("text").value) setImage(null); });
  at("file").addEventListener("change", (event) => {
    const file = event.target.files[0];
    event.target.value = ""; // so that the same file can be chosen again
    if (file) void take(file);
  });
  at("chosen-picture").addEventListener("error", () => { at("chosen-picture").hidden = true; }); // a format that the browser cannot draw
  at("chosen-remove").addEventListener("click", removeImage);
  at("key").addEventListener("input", (event) => useKey(event.target.value));
  at("key").addEventListener("change", () => void begin());
  accept(at("veil"), take);
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    if (running) { running.abort(); at("status").textContent = "Stopped."; } else if (image) removeImage();
  });
}

function wireOptions() {
  at("how").addEventListener("submit", (event) => event.preventDefault());
  at("k").addEventListener("input", () => { at("k-shown").value = at("k").value; rerun(SETTLE_MS); });
  at("how").addEventListener("change", (event) => { if (event.target.id !== "k") rerun(); });
}

function showFacts() {
  const { memory } = served;
  const facts = {
    model: served.name,
    vectors: `${served.dimension}-d`,
    memory: memory.pairs === null ? "unavailable" : countPairs(memory.pairs),
  };
  at("facts").replaceChildren(...Object.entries(facts).map(([name, value]) =>
    el("div", {}, el("dt", {}, name), el("dd", { id: `fact-${name}` }, value))));
}

function showExamples(pairs) {
  const texts = pairs.filter((pair) => pair.caption).slice(0, 3).map((pair) => {
    const chip = el("button", { type: "button", class: "chip" }, el("span", { class: "caption" }, pair.caption));
    chip.addEventListener("click", () => { setImage(null); at("text").value = pair.caption; void search({ text: pair.caption }); });
    return chip;
  });
  const pictures = pairs.filter((pair) => pair.picture).map((pair) => {
    const chip = el("button", { type: "button", class: "chip", "aria-label": `Search by the picture of ${called(pair)}` },
      el("img", { src: pair.picture, alt: "" }));
    chip.addEventListener("click", () => searchByImage({ name: nameOf(pair), data: pair.picture }));
    return chip;
  });
  at("example-texts").replaceChildren(...texts);
  at("example-pictures").replaceChildren(...pictures);
  at("examples").hidden = !texts.length && !pictures.length;
}

async function begin() {
  try {
    const known = served;
    served = await model();
    if (!known) {
      at("k").max = String(Math.max(50, served.k));
      at("k").value = at("k-shown").value = String(served.k);
    }
    showFacts();
    showExamples(await examples());
    showText(at("problem"), null);
  } catch (error) {
    fail(error);
  }
}

wireQuery();
wireOptions();
linkPairs(at("answer"));
wireMemory(() => image, (words, pairs) => {
  if (served) {
    served.memory.pairs = pairs;
    showFacts();
  }
  if (!rerun(0, words)) at("status").textContent = words;
});
wireFeedback((words) => rerun(0, words));
at("options").open = !stacked.matches;
void begin();
