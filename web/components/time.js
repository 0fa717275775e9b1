/** A time as people say it, with the exact one as title. */

import { html } from "../vendor/preact.js";

/** @type {Array<[number, Intl.RelativeTimeFormatUnit, number]>} below so many seconds: the unit, and its seconds */
const STEPS = [
  [60, "second", 1],
  [3600, "minute", 60],
  [86_400, "hour", 3600],
  [7 * 86_400, "day", 86_400],
  [30 * 86_400, "week", 7 * 86_400],
  [365 * 86_400, "month", 30 * 86_400],
  [Infinity, "year", 365 * 86_400],
];
const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
const EXACT = new Intl.DateTimeFormat("en", { dateStyle: "long", timeStyle: "short" });

/** @param {{value: string}} props */
export function Time({ value }) {
  const date = new Date(value);
  return html`<time datetime=${value} title=${EXACT.format(date)}>${relative(date)}</time>`;
}

/** @param {Date} date */
function relative(date) {
  const seconds = (date.getTime() - Date.now()) / 1000;
  if (Math.abs(seconds) < 45) return "just now";
  const [, unit, size] = STEPS.find(([limit]) => Math.abs(seconds) < limit) ?? STEPS[0];
  return RELATIVE.format(Math.round(seconds / size), unit);
}

const MONTH = new Intl.DateTimeFormat("en", { month: "long", year: "numeric" });
/** @param {string} value */
export const monthOf = (value) => MONTH.format(new Date(value));
