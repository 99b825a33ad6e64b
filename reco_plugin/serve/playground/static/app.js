/** The page: what is asked, when it is asked again, and what is shown of the answer. */

import { compare, examples, model, Trouble, useKey } from "./api.js";
import { at, called, el, nameOf, tell } from "./dom.js";
import { wireFeedback } from "./feedback.js";
import { accept, read } from "./images.js";
import { freshIds, offerQueryImage, wireMemory } from "./memory.js";
import { drawNeighbours } from "./neighbours.js";
import { drawRankings, linkPairs } from "./rankings.js";
import { askForKey, countPairs, degradedWords, summary, troubleWords } from "./words.js";

const SETTLE_MS = 150; // after the last step of the slider
const stacked = matchMedia("(max-width: 899px)"); // as in the style sheet
let image = null;
let asked = null; // the query that is shown
let asking = null; // the query whose answer is awaited
let running = null;
let served = null;
let later = 0;

function question() {
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

/** Ask something new: where the answer lies below the form, go there. */
async function search(query, first = "") {
  await run(query, first);
  if (asked === query && stacked.matches) at("answer").scrollIntoView({ block: "start" });
}

/** Ask the service; `first` words are said before what the answer changed. */
async function run(query, first = "") {
  clearTimeout(later);
  running?.abort();
  const mine = new AbortController();
  running = mine;
  asking = query;
  busy(true);
  tell(at("problem"), null);
  tell(at("feedback-problem"), null);
  const how = options();
  const input = query.image ? { image: query.image.data } : { text: query.text };
  try {
    const { data, timing } = await compare({ input, ...how }, mine.signal);
    if (running !== mine) return;
    asked = query;
    show(query, data, how, timing, first);
  } catch (error) {
    if (error.name !== "AbortError") fail(error);
  } finally {
    if (running === mine) { running = asking = null; busy(false); }
  }
}

function show(query, answer, how, timing, first) {
  const fresh = freshIds();
  at("empty").hidden = true;
  at("found").hidden = false;
  at("answer").classList.toggle("is-degraded", Boolean(answer.degraded));
  tell(at("degraded"), answer.degraded && degradedWords(answer.degraded));
  drawNeighbours(query, answer, how.refine, served?.memory.pairs, fresh);
  drawRankings(answer, fresh);
  const took = Object.entries(timing).map(([step, ms]) => `${step} ${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`);
  at("said").replaceChildren(`${first} ${summary(answer)}`.trim(), el("span", { class: "took", "aria-hidden": "true" }, took.join(" · ")));
}

function fail(error) {
  if (!(error instanceof Trouble)) console.error(error);
  tell(at("problem"), error instanceof Trouble ? troubleWords(error) : "The page failed to show this answer.");
  askForKey(error);
  at("found").hidden = true;
  at("empty").hidden = false;
  tell(at("degraded"), null);
  at("said").textContent = "";
  asked = null;
}

function busy(is) {
  at("answer").setAttribute("aria-busy", String(is));
  document.body.classList.toggle("busy", is);
}

/** Ask again what is awaited, or else shown, once the slider has come to rest; whether there is such a query. */
function again(wait = 0, words = "") {
  clearTimeout(later);
  if (!(asking || asked)) return false;
  later = setTimeout(() => { if (asking || asked) void run(asking || asked, words); }, wait);
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
    askByImage(await read(file), others ? `Only ${file.name} was taken, the first of ${others + 1} files.` : "");
  } catch (error) {
    fail(error);
  }
}

function askByImage(next, first = "") {
  const focused = document.activeElement === at("file");
  setImage(next);
  if (focused) at("chosen-remove").focus(); // what had the focus is hidden now
  void search({ image: next }, first);
}

function removeImage() {
  setImage(null);
  at("text").focus();
}

function wireQuery() {
  at("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const query = question();
    if (query) void search(query);
    else {
      tell(at("problem"), "Write a text or choose an image first.");
      at("text").focus();
    }
  });
  at("text").addEventListener("input", () => { if (image && at("text").value) setImage(null); });
  at("file").addEventListener("change", (event) => {
    const file = event.target.files[0];
    event.target.value = ""; // so that the same file can be chosen again
    if (file) void take(file);
  });
  at("chosen-picture").addEventListener("error", () => { at("chosen-picture").hidden = true; }); // not one that a browser draws
  at("chosen-remove").addEventListener("click", removeImage);
  at("key").addEventListener("input", (event) => useKey(event.target.value));
  at("key").addEventListener("change", () => void begin());
  accept(at("veil"), take);
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    if (running) { running.abort(); at("said").textContent = "Stopped."; } else if (image) removeImage();
  });
}

function wireOptions() {
  at("how").addEventListener("submit", (event) => event.preventDefault());
  at("k").addEventListener("input", () => { at("k-shown").value = at("k").value; again(SETTLE_MS); });
  at("how").addEventListener("change", (event) => { if (event.target.id !== "k") again(); });
}

function showFacts() {
  const { memory } = served;
  const facts = {
    model: served.name,
    vectors: `${served.dimension}-d`,
    memory: memory.pairs === null ? "away" : countPairs(memory.pairs),
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
    const chip = el("button", { type: "button", class: "chip", "aria-label": `Ask by the picture of ${called(pair)}` },
      el("img", { src: pair.picture, alt: "" }));
    chip.addEventListener("click", () => askByImage({ name: nameOf(pair), data: pair.picture }));
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
    tell(at("problem"), null);
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
  if (!again(0, words)) at("said").textContent = words;
});
wireFeedback((words) => again(0, words));
at("options").open = !stacked.matches;
void begin();
