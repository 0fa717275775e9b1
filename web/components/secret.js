/** A text that is shown only once, with a button that copies it. */

import { say } from "../state.js";
import { html } from "../vendor/preact.js";

/** @param {{label: string, text: string}} props */
export function Secret({ label, text }) {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      say("Copied.");
    } catch {
      say("Your browser does not allow this. Select the text and copy it.", "error");
    }
  };
  return html`<p class="notice secret-head" role="status">
      <span>${label}</span><button type="button" class="button button-small" onClick=${copy}>Copy</button>
    </p>
    <p class="secret">${text}</p>`;
}
