"use strict";
// Marks, blind: one query at a time, by keys; at the end the page shows which side is which, and counts.
const section = document.querySelector("#pairs");
if (section) {
  const pairs = [...section.querySelectorAll(".pair")];
  const key = `reco-compare-${section.dataset.key}`;
  let kept = {};
  try {
    kept = JSON.parse(localStorage.getItem(key)) || {};
  } catch {
    kept = {}; // storage is off: marks last as long as the page
  }
  const person = kept[""] || crypto.getRandomValues(new Uint32Array(4)).join("-");
  let now = 0;
  let finished = false;

  const sideOf = (pair) => (kept[pair.dataset.id] === "same" ? null : kept[pair.dataset.id]);
  const better = (pair) => {
    const mark = kept[pair.dataset.id];
    return mark === undefined || mark === "same" ? mark : pair.dataset[mark];
  };

  const show = () => {
    pairs.forEach((pair, place) => {
      pair.classList.toggle("now", place === now);
      pair.querySelectorAll(".side").forEach((side, number) => {
        side.classList.toggle("chosen", sideOf(pair) === ["left", "right"][number]);
      });
    });
    const marked = pairs.filter((pair) => kept[pair.dataset.id] !== undefined).length;
    const mark = kept[pairs[now].dataset.id];
    const choice = { left: "left is better", right: "right is better", same: "the same" }[mark];
    section.querySelector("#progress").textContent = finished
      ? `${marked} of ${pairs.length} marked`
      : `Query ${now + 1} of ${pairs.length}, ${marked} marked${choice ? `; this one: ${choice}` : ""}`;
  };

  const go = (step) => {
    now = Math.min(Math.max(now + step, 0), pairs.length - 1);
    show();
  };

  const put = (mark) => {
    if (finished) return;
    kept[pairs[now].dataset.id] = mark;
    kept[""] = person;
    try {
      localStorage.setItem(key, JSON.stringify(kept));
    } catch {
      // storage is off
    }
    if (pairs.every((pair) => kept[pair.dataset.id] !== undefined)) finish();
    else go(1);
  };

  // The two-sided sign test, without ties.
  const chance = (a, b) => {
    const n = a + b;
    if (!n) return 1;
    let term = 1 / 2 ** n;
    let tail = 0;
    for (let more = 0; more <= n; more++) {
      if (more >= Math.max(a, b)) tail += term;
      term = (term * (n - more)) / (more + 1);
    }
    return Math.min(1, 2 * tail);
  };

  const finish = () => {
    finished = true;
    section.classList.remove("blind");
    section.querySelector("[data-save]").hidden = false;
    for (const button of section.querySelectorAll("[data-mark], [data-go], [data-finish]")) button.hidden = true;
    const count = (side) => pairs.filter((pair) => better(pair) === side).length;
    const [refined, plain, same] = [count("refined"), count("plain"), count("same")];
    section.querySelector("#counted").textContent =
      `Refined better ${refined}, plain better ${plain}, the same ${same}; ` +
      `as uneven by chance: ${chance(refined, plain).toPrecision(3)} (sign test)`;
    show();
  };

  const save = () => {
    const marks = pairs
      .filter((pair) => kept[pair.dataset.id] !== undefined)
      .map((pair) => ({ query: pair.dataset.id, better: better(pair) }));
    const file = new Blob([JSON.stringify({ key: section.dataset.key, person, marks }, null, 1)], { type: "application/json" });
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(file), download: "marks.json" });
    link.click();
  };

  const open = () => {
    if (!section.hidden) return;
    section.hidden = false;
    document.querySelector("#mark").hidden = true;
    document.querySelector("#examples")?.setAttribute("hidden", "");
    section.classList.add("blind");
    if (pairs.every((pair) => kept[pair.dataset.id] !== undefined)) finish();
    else show();
  };
  document.querySelector("#mark").addEventListener("click", open);
  for (const button of section.querySelectorAll(".buttons button")) {
    button.addEventListener("click", () => {
      if (button.dataset.mark) put(button.dataset.mark);
      else if (button.dataset.go) go(Number(button.dataset.go));
      else if ("finish" in button.dataset) finish();
      else save();
    });
  }
  const keys = {
    1: () => put("left"), 2: () => put("same"), 3: () => put("right"), j: () => go(1), k: () => go(-1), f: finish,
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea")) return;
    if (event.key === "m") open();
    if (section.hidden || finished || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
}
