/** Text of users as elements: links, mentions, paragraphs. It never becomes HTML. */

import { href } from "./router.js";
import { html } from "./vendor/preact.js";

// A web address, or a mention that is not part of an e-mail address or a path.
const SPECIAL = /(https?:\/\/[^\s<>"]+)|(?<![\w@/.-])@([A-Za-z0-9][A-Za-z0-9_.-]{2,29})/g;

/**
 * Elements of one line or paragraph.
 * @param {string} text
 */
export function linked(text) {
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(SPECIAL)) {
    let shown = found[0];
    let element;
    if (found[1]) {
      shown = withoutTail(shown);
      element = addressOf(shown);
    } else {
      shown = shown.replace(/[.-]+$/, "");
      element = html`<a href=${href(`/users/${encodeURIComponent(shown.slice(1))}`)}>${shown}</a>`;
    }
    if (!element) continue;
    parts.push(text.slice(end, found.index), element);
    end = found.index + shown.length;
  }
  parts.push(text.slice(end));
  return parts;
}

/**
 * Paragraphs of a longer text. Line breaks stay, because the style keeps white space.
 * @param {string} text
 */
export function paragraphs(text) {
  return text
    .split(/\n\s*\n/)
    .filter((part) => part.trim())
    .map((part) => html`<p>${linked(part)}</p>`);
}

/**
 * Punctuation after an address belongs to the sentence; so does a bracket that was opened before it.
 * @param {string} address
 */
function withoutTail(address) {
  let kept = address.replace(/[.,;:!?'"]+$/, "");
  while (kept.endsWith(")") && !kept.includes("(")) kept = kept.slice(0, -1).replace(/[.,;:!?'"]+$/, "");
  return kept;
}

/** @param {string} text */
function addressOf(text) {
  if (!URL.canParse(text)) return null;
  const { protocol, href: address } = new URL(text);
  if (protocol !== "https:" && protocol !== "http:") return null;
  return html`<a href=${address} rel="nofollow ugc noopener noreferrer" target="_blank">${text}</a>`;
}

/**
 * "1 comment", "2 comments".
 * @param {number} number
 * @param {string} singular
 */
export function count(number, singular, plural = `${singular}s`) {
  return `${shortNumber(number)} ${number === 1 ? singular : plural}`;
}

const COMPACT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
/** @param {number} number */
export const shortNumber = (number) => (number < 10_000 ? String(number) : COMPACT.format(number));
