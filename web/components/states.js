/** What a page shows instead of content: loading, empty, failed. */

import { html } from "../vendor/preact.js";

/** Grey bars where content will be, for `rows` items. Shown late by the style, so that fast answers do not flicker. */
export function Loading({ rows = 4, label = "Loading" }) {
  const bars = Array.from({ length: rows }, () => html`<div class="skeleton"><i></i><i></i><i></i></div>`);
  return html`<div class="loading" role="status"><span class="visually-hidden">${label}</span>${bars}</div>`;
}

export function Empty({ title, children }) {
  return html`<div class="empty">
    <h2>${title}</h2>
    ${children}
  </div>`;
}

/** A failure, with a button to try again where that may help. */
export function Failed({ error, retry }) {
  const isMissing = error.status === 404;
  const title = error.code === "offline" ? "No connection" : isMissing ? "Not found" : "That did not work";
  return html`<div class="empty" role="alert">
    <h2>${title}</h2>
    <p>${error.message}</p>
    ${retry && !isMissing && html`<button class="button" onClick=${retry}>Try again</button>`}
  </div>`;
}
