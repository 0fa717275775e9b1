/** A bar that says what has arrived, so that the page does not move until the reader wants it. */

import { html } from "../vendor/preact.js";
import { Icon } from "./icon.js";

/** @param {{text: string, show: () => void}} props An empty text shows nothing. */
export function NewsBar({ text, show }) {
  return html`<div class="news" role="status">
    ${text && html`<button type="button" class="button button-primary button-small" onClick=${show}><${Icon} name="up" />${text}</button>`}
  </div>`;
}
