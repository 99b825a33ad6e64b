/** Adds pairs to the memory, and deletes them. */

import { addPair, deletePair } from "./api.js";
import { at, called, el, nameOf, picture, showText } from "./dom.js";
import { read, thumbnail } from "./images.js";
import { showKeyField, countPairs, errorText } from "./words.js";

// Ids and captions of added pairs, to delete them after a reload. A host may have other services under other paths.
const STORED = `reco-playground-added${location.pathname.replace(/\/$/, "")}`;
let image = null;
let stored = true; // whether the browser keeps the list
let added = load();
let adding = false;

/** Ids of the pairs that were added from this browser. */
export const freshIds = () => new Set(added.map((pair) => pair.id));

/** Wire the form; `queryImage` returns the image of the query or null; `changed(text, count)` is called after each change. */
export function wireMemory(queryImage, changed) {
  at("pair-file").addEventListener("change", async (event) => {
    const file = event.target.files[0];
    if (file) await attempt(async () => choose(await read(file)));
    event.target.value = "";
  });
  at("pair-from-query").addEventListener("click", () => choose(queryImage()));
  at("add").addEventListener("submit", (event) => {
    event.preventDefault();
    void attempt(() => add(changed));
  });
  at("pair-picture").addEventListener("error", () => { at("pair-picture").hidden = true; }); // a format that the browser cannot draw
  addEventListener("storage", (event) => {
    if (event.key !== STORED) return;
    added = load();
    drawAdded(changed);
  });
  drawAdded(changed);
}

/** Offer the image of the query for the new pair, if there is one. */
export function offerQueryImage(there) {
  at("pair-from-query").hidden = !there;
}

function choose(chosen) {
  image = chosen;
  at("pair-picture").src = chosen.data;
  at("pair-picture").hidden = false;
  showText(at("pair-name"), chosen.name);
  showText(at("add-problem"), null);
}

async function add(changed) {
  if (adding) return; // a second click, before the answer
  const caption = at("caption").value.trim();
  const lacks = !image ? [at("pair-file"), "Choose an image first."] : !caption ? [at("caption"), "Write a caption first."] : null;
  if (lacks) {
    lacks[0].focus();
    showText(at("add-problem"), lacks[1]);
    return;
  }
  adding = true;
  try {
    await addChosen(image, caption, changed);
  } finally {
    adding = false;
  }
}

async function addChosen(chosen, caption, changed) {
  const small = await thumbnail(chosen.data);
  const id = `playground-${crypto.randomUUID ? crypto.randomUUID() : Date.now().toString(36) + Math.random().toString(36).slice(2)}`;
  const payload = small ? { thumbnail: small } : {};
  const answer = await addPair({ id, text: caption, image: chosen.data, payload });
  added = [{ id, caption, picture: small }, ...latest()];
  store();
  if (image === chosen) unchoose();
  if (at("caption").value.trim() === caption) at("caption").value = "";
  drawAdded(changed);
  changed(`Added “${called({ caption })}”; the memory holds ${countPairs(answer.pairs)}.`, answer.pairs);
}

function unchoose() {
  image = null;
  at("pair-picture").hidden = true;
  at("pair-picture").removeAttribute("src");
  showText(at("pair-name"), "none chosen");
}

async function remove(pair, changed) {
  const answer = await deletePair(pair.id);
  added = latest().filter((one) => one.id !== pair.id);
  store();
  drawAdded(changed);
  (at("added-list").querySelector("button") || at("caption")).focus();
  changed(`${answer.removed ? "Deleted" : "No longer there:"} “${called(pair)}”; the memory holds ${countPairs(answer.pairs)}.`, answer.pairs);
}

function drawAdded(changed) {
  at("added").hidden = !added.length;
  at("added-list").replaceChildren(...added.map((pair) => {
    const button = el("button", { type: "button", class: "quiet", "aria-label": `Delete ${called(pair)}` }, "Delete");
    button.addEventListener("click", async () => {
      button.disabled = true;
      await attempt(() => remove(pair, changed));
      button.disabled = false;
    });
    return el("li", {}, picture(pair), el("span", { class: "caption" }, nameOf(pair)), button);
  }));
}

async function attempt(action) {
  showText(at("add-problem"), null);
  try {
    await action();
  } catch (error) {
    showKeyField(error);
    showText(at("add-problem"), errorText(error));
  }
}

function load() {
  try {
    const kept = JSON.parse(localStorage.getItem(STORED));
    return Array.isArray(kept) ? kept.filter((pair) => typeof pair?.id === "string") : [];
  } catch {
    return [];
  }
}

function store() {
  try {
    localStorage.setItem(STORED, JSON.stringify(added));
    stored = true;
  } catch {
    stored = false; // the list is kept until the page is closed
  }
}

/** The current list: another tab may have changed it. */
const latest = () => (stored ? load() : added);
