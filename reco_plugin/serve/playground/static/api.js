/** Talks to the service; an answer is data, or a Trouble in words. */

/** Something that went wrong, in words for people. */
export class Trouble extends Error {
  constructor(message, code = null) {
    super(message);
    this.code = code;
  }
}

let key = "";

/** Remember the key until the page is closed. */
export function useKey(given) {
  key = given.trim();
}

/** Compare the plain and the refined vector of one query. */
export const compare = (body, signal) => ask("POST", "page/compare", { body, signal });

/** A few pairs to begin with. */
export const examples = async () => (await ask("GET", "page/examples")).data.data;

/** The alias that refines, or the first one. */
export async function model() {
  const all = (await ask("GET", "v1/models")).data.data;
  return all.find((one) => one.refinement === "refined") || all[0];
}

/** Store one pair. */
export const addPair = async (pair) =>
  (await ask("POST", "v1/memory/pairs", { body: { pairs: [pair] } })).data;

/** Delete one pair. */
export const deletePair = async (id) =>
  (await ask("DELETE", `v1/memory/pairs?id=${encodeURIComponent(id)}`)).data;

/** Say something about one answer. */
export const judge = async (judgment) =>
  (await ask("POST", "v1/memory/feedback", { body: { judgments: [judgment] } })).data;

/** Forget what was said. */
export const withdraw = async (id) =>
  (await ask("DELETE", `v1/memory/feedback?id=${encodeURIComponent(id)}`)).data;

async function ask(method, path, { body, signal } = {}) {
  const headers = {};
  if (body) headers["content-type"] = "application/json";
  if (key) headers.authorization = `Bearer ${key}`;
  if (/[^\0-\xff]/.test(key)) throw new Trouble("No key has such characters.", "key_wrong"); // no header holds them
  let response;
  try {
    response = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble("The service does not answer. Is it running, and are you connected?", "unreachable");
  }
  const data = await response.json().catch(() => null);
  if (!response.ok) {
    const error = data?.error;
    throw new Trouble(sentence(error?.message || `The service answered ${response.status}.`), error?.code);
  }
  return { data, timing: timing(response.headers.get("server-timing")) };
}

/** "encode;dur=1.2, refine;dur=3" as {encode: 1.2, refine: 3}. */
function timing(header) {
  const steps = [...(header || "").matchAll(/([a-z_]+);dur=([\d.]+)/g)];
  return Object.fromEntries(steps.map(([, step, ms]) => [step, Number(ms)]));
}

/** An error's message; the page sends one item at a time, so its place says nothing. */
function sentence(text) {
  const said = text.replace(/^(input|pairs|judgments)\[0\][^:]*: /, "");
  const whole = said.charAt(0).toUpperCase() + said.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}
