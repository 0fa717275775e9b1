/** What a page shows instead of content: loading, empty, failed. */

import { useRecovery } from "../loading.js";
import { html } from "../vendor/preact.js";

/** Grey bars where content will be, for `rows` items. Shown late by the style, so that fast answers do not flicker. */
export function Loading({ rows = 4, label = "Loading" }) {
  const bars = Array.from({ length: rows }, () => html`<div class="skeleton"><i></i><i></i><i></i></div>`);
  return html`<div class="loading" role="status"><span class="visually-hidden">${label}</span>${bars}</div>`;
}

/**
 * With `isPage`, it is all that the page shows.
 * @param {{title: string, isPage?: boolean, children?: unknown}} props
 */
export function Empty({ title, isPage = false, children = null }) {
  return html`<div class="empty">
    ${isPage ? html`<h1 tabindex="-1">${title}</h1>` : html`<h2>${title}</h2>`}
    ${children}
  </div>`;
}

/**
 * A failure, with a button to try again where that may help. It tries by itself when the server is back. With `isPage`, it is all that the page shows.
 * @param {{error: import("../api.js").ApiError, retry?: () => void, isPage?: boolean}} props
 */
export function Failed({ error, retry, isPage = false }) {
  useRecovery(error, retry);
  const isMissing = error.status === 404;
  const title = error.code === "offline" ? "No connection" : isMissing ? "Not found" : "That did not work";
  return html`<div class="empty" role="alert">
    ${isPage ? html`<h1 tabindex="-1">${title}</h1>` : html`<h2>${title}</h2>`}
    <p>${error.message}</p>
    ${retry && !isMissing && html`<button class="button" onClick=${retry}>Try again</button>`}
  </div>`;
}
