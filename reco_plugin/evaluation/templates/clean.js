"use strict";
// Decisions about captions, by keys or buttons; they stay in the browser until they are saved as corrections.csv.
const section = document.querySelector("#captions");
const cards = [...section.querySelectorAll(".caption")];
const form = document.querySelector("#edit");
const key = `reco-clean-${section.dataset.key}`;
let kept = { made: {}, order: [] };
try {
  kept = JSON.parse(localStorage.getItem(key)) || kept;
} catch {
  // storage is off: decisions last as long as the page
}
let now = Math.max(cards.findIndex((card, place) => !kept.made[place]), 0);

const show = () => {
  cards.forEach((card, place) => {
    const made = kept.made[place];
    card.classList.toggle("now", place === now);
    card.classList.toggle("decided", Boolean(made));
    const line = card.querySelector(".decision");
    line.hidden = !made;
    line.textContent = made ? `${made.decision}${made.new ? `: ${made.new}` : ""}` : "";
  });
  cards[now]?.scrollIntoView({ block: "center" });
  document.querySelector("#progress").textContent =
    `Caption ${Math.min(now + 1, cards.length)} of ${cards.length}, ${Object.keys(kept.made).length} decided`;
};
const keep = () => {
  try {
    localStorage.setItem(key, JSON.stringify(kept));
  } catch {
    // storage is off
  }
  show();
};
const go = (step) => {
  now = Math.min(Math.max(now + step, 0), cards.length - 1);
  show();
};
const decide = (decision, caption = "") => {
  kept.order = [...kept.order.filter((place) => place !== now), now];
  kept.made[now] = { decision, new: caption };
  now = Math.min(now + 1, cards.length - 1);
  keep();
};
const undo = () => {
  if (!kept.order.length) return;
  now = kept.order.pop();
  delete kept.made[now];
  keep();
};
const one = () => JSON.parse(cards[now].dataset.pairs).length === 1;
const edit = () => {
  if (!one()) return;
  const field = form.querySelector("input");
  form.hidden = false;
  field.value = cards[now].dataset.suggestion || cards[now].querySelector(".old").textContent;
  field.select();
  field.focus();
};
const close = () => {
  form.hidden = true;
  document.activeElement.blur();
};
const cell = (text) => (/[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const save = () => {
  const rows = Object.entries(kept.made).flatMap(([place, made]) =>
    JSON.parse(cards[place].dataset.pairs).map(([id, old]) => [id, old, made.new, made.decision].map(cell).join(",")));
  const file = new Blob([["id,old,new,decision", ...rows, ""].join("\n")], { type: "text/csv" });
  Object.assign(document.createElement("a"), { href: URL.createObjectURL(file), download: "corrections.csv" }).click();
};
const keys = {
  y: () => cards[now].dataset.suggestion && decide("replace", cards[now].dataset.suggestion),
  e: edit, n: () => decide("right"), d: () => decide("leave out"), u: undo, s: save,
  ArrowUp: () => go(-1), ArrowLeft: () => go(-1), ArrowDown: () => go(1), ArrowRight: () => go(1),
};
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = form.querySelector("input").value.trim();
  close();
  if (text) decide("replace", text);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") close();
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input") || !keys[event.key] || !cards.length) return;
  event.preventDefault();
  keys[event.key]();
});
for (const button of section.querySelectorAll("[data-do]")) button.addEventListener("click", () => cards.length && keys[button.dataset.do]());
cards.forEach((card, place) => card.addEventListener("click", () => { now = place; show(); }));
if (cards.length) show();
