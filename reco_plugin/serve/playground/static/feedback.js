/** "Not this": reject a pair for a query, and withdraw the rejection. */

import { judge, withdraw } from "./api.js";
import { at, called, el, showText } from "./dom.js";
import { showKeyField, errorText } from "./words.js";

const rejections = new Map(); // id of the rejection by query and pair, until the page is closed
let notify = () => {};

/** Call `changed(text)` after each change. */
export function wireFeedback(changed) {
  notify = changed;
}

/** A button beside a pair that was retrieved for `query`. */
export function notThis(pair, query) {
  const place = JSON.stringify([query.text || query.image.data, pair.id]);
  const back = rejections.has(place);
  const words = back ? "Take back" : "Not this";
  const button = el("button", { type: "button", class: "not-this", "aria-label": `${words}: ${called(pair)}`, "aria-pressed": String(back) }, words);
  button.addEventListener("click", async () => {
    button.disabled = true;
    showText(at("feedback-problem"), null);
    try {
      notify(back ? await takeBack(place, pair) : await reject(place, pair, query));
    } catch (error) {
      button.disabled = false;
      showKeyField(error);
      showText(at("feedback-problem"), errorText(error));
    }
  });
  return button;
}

async function reject(place, pair, query) {
  const content = query.image ? { image: query.image.data } : { text: query.text };
  const answer = await judge({ ...content, pair: pair.id, by: "playground" });
  rejections.set(place, answer.data[0].id);
  return `“${called(pair)}” does not match the query: stored with the memory.`;
}

async function takeBack(place, pair) {
  await withdraw(rejections.get(place));
  rejections.delete(place);
  return `Taken back: “${called(pair)}” counts again.`;
}
