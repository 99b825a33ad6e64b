/** "Not this": say of a pair that it is not what was asked for, and take it back. */

import { judge, withdraw } from "./api.js";
import { at, called, el, tell } from "./dom.js";
import { askForKey, troubleWords } from "./words.js";

const said = new Map(); // query and pair -> id of what was said, until the page is closed
let told = () => {};

/** Wire it; `changed(words)` is told of each change. */
export function wireFeedback(changed) {
  told = changed;
}

/** A button beside a pair that `query` found. */
export function notThis(pair, query) {
  const place = JSON.stringify([query.text || query.image.data, pair.id]);
  const back = said.has(place);
  const words = back ? "Take back" : "Not this";
  const button = el("button", { type: "button", class: "not-this", "aria-label": `${words}: ${called(pair)}`, "aria-pressed": String(back) }, words);
  button.addEventListener("click", async () => {
    button.disabled = true;
    tell(at("feedback-problem"), null);
    try {
      told(back ? await takeBack(place, pair) : await reject(place, pair, query));
    } catch (error) {
      button.disabled = false;
      askForKey(error);
      tell(at("feedback-problem"), troubleWords(error));
    }
  });
  return button;
}

async function reject(place, pair, query) {
  const asked = query.image ? { image: query.image.data } : { text: query.text };
  const answer = await judge({ ...asked, pair: pair.id, by: "playground" });
  said.set(place, answer.data[0].id);
  return `“${called(pair)}” is not what was asked for: kept with the memory.`;
}

async function takeBack(place, pair) {
  await withdraw(said.get(place));
  said.delete(place);
  return `Taken back: “${called(pair)}” counts again.`;
}
