/** Texts for people. */

import { at, called } from "./dom.js";

const REASONS = {
  memory_error: "the memory failed",
  memory_timeout: "the memory was too slow",
  memory_circuit_open: "the memory has failed several times and is not searched for a moment",
  fusion_error: "the fusion failed",
  fusion_timeout: "the fusion was too slow",
};

/** Why vectors stay plain that should be refined. */
export const degradedWords = (reason) =>
  `Degraded: ${REASONS[reason] || reason}. Both rankings are plain, as without the memory.`;

const KEYS = {
  key_missing: "This needs a key: enter it under “Key”.",
  key_wrong: "This service does not know that key.",
  right_missing: null, // the service names the right
};

/** The text of an error. */
export const errorText = (error) => KEYS[error.code] || error.message;

/** Show the field for a key if an error is about keys. */
export function showKeyField(error) {
  if (!(error.code in KEYS)) return;
  at("key-field").hidden = false;
  at("key").focus();
}

/** 1 -> "1st". */
export function ordinal(rank) {
  const [tens, ones] = [rank % 100, rank % 10];
  if (tens > 10 && tens < 14) return `${rank}th`;
  return `${rank}${["th", "st", "nd", "rd"][ones] || "th"}`;
}

/** Share as per cent. */
export const percent = (share) => (share > 0 && share < 0.005 ? "<\u00a01\u00a0%" : `${Math.round(100 * share)}\u00a0%`);

/** Whether the memory holds the answer. It is a rank among similar queries, so per cent would mislead. */
export const presenceWords = (presence) => `presence in the memory: ${number(presence)} (a rank from 0 to 1)`;

/** Signed number with a true minus and two digits. */
export const number = (value) => value.toFixed(2).replace("-", "−");

/** A rank in a list that ends at `depth`. */
export const place = (rank, depth) => (rank ? ordinal(rank) : `beyond ${depth}`);

/** How many pairs, in words. */
export const countPairs = (count) => `${count.toLocaleString("en")} ${count === 1 ? "pair" : "pairs"}`;

/** Degrees between two unit vectors of this cosine distance. */
export const degrees = (moved) => (Math.acos(Math.max(-1, Math.min(1, 1 - moved))) * 180) / Math.PI;

/** A summary of the answer, which screen readers announce. */
export function summary(answer) {
  const first = answer.refined_ranking[0];
  if (!first) return "Nothing to rank.";
  if (!(answer.refined || answer.plain) || answer.degraded) return `Not refined: ${called(first)} comes first.`;
  if (answer.moved < 1e-6) return `The vector stays where it was; ${called(first)} is first.`;
  const shift = answer.moved < 1e-6 ? "The vector stays where it was"
    : `The retrieved pairs moved the query by ${Math.round(degrees(answer.moved))}°`;
  if (first.rank_plain === 1) return `${shift}; ${called(first)} stays first.`;
  return `${shift}; ${called(first)} comes first (without the memory: ${place(first.rank_plain, answer.depth)}).`;
}

/** Why nothing was retrieved, or nothing moved; else null. `pairs`: their number in the memory, null if unknown. */
export function whyUnmoved(answer, refine, pairs) {
  if (answer.degraded) return "The memory was not used for this answer.";
  if (!answer.refined && refine !== false && pairs === 0) return "The memory is empty: add a pair, and the next query uses it.";
  if (!answer.refined && !answer.plain) {
    return refine === false
      ? "Refinement is switched off, so nothing was retrieved."
      : "By default this stays plain, so nothing was retrieved. Choose “always” to see what refinement would do.";
  }
  return answer.plain ? `The vector stays where it was: ${answer.plain}.` : null;
}
