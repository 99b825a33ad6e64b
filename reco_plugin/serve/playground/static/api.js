/** Calls the service. An error is a ServiceError with a text for people. */

/** An error with a text for people, and the code of the service. */
export class ServiceError extends Error {
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
export const compare = (body, signal) => send("POST", "page/compare", { body, signal });

/** A few pairs to start with. */
export const examples = async () => (await send("GET", "page/examples")).data.data;

/** The alias that refines, or the first one. */
export async function model() {
  const all = (await send("GET", "v1/models")).data.data;
  return all.find((one) => one.refinement === "refined") || all[0];
}

/** Store one pair. */
export const addPair = async (pair) =>
  (await send("POST", "v1/memory/pairs", { body: { pairs: [pair] } })).data;

/** Delete one pair. */
export const deletePair = async (id) =>
  (await send("DELETE", `v1/memory/pairs?id=${encodeURIComponent(id)}`)).data;

/** Judge one answer. */
export const judge = async (judgment) =>
  (await send("POST", "v1/memory/feedback", { body: { judgments: [judgment] } })).data;

/** Delete feedback. */
export const withdraw = async (id) =>
  (await send("DELETE", `v1/memory/feedback?id=${encodeURIComponent(id)}`)).data;

async function send(method, path, { body, signal } = {}) {
  const headers = {};
  if (body) headers["content-type"] = "application/json";
  if (key) headers.authorization = `Bearer ${key}`;
  if (/[^\0-\xff]/.test(key)) throw new ServiceError("No key has such characters.", "key_wrong"); // no header holds them
  let response;
  try {
    response = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("The service does not answer. Is it running, and are you connected?", "unreachable");
  }
  const data = await response.json().catch(() => null);
  if (!response.ok) {
    const error = data?.error;
    throw new ServiceError(sentence(error?.message || `The service answered ${response.status}.`), error?.code);
  }
  return { data, timing: timing(response.headers.get("server-timing")) };
}

/** "encode;dur=1.2, refine;dur=3" as {encode: 1.2, refine: 3}. */
function timing(header) {
  const steps = [...(header || "").matchAll(/([a-z_]+);dur=([\d.]+)/g)];
  return Object.fromEntries(steps.map(([, step, ms]) => [step, Number(ms)]));
}

/** The message of an error, without the place of the item: the page sends one at a time. */
function sentence(text) {
  const message = text.replace(/^(input|pairs|judgments)\[0\][^:]*: /, "");
  const whole = message.charAt(0).toUpperCase() + message.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}
