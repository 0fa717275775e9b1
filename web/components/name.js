/** The names of a user in a list. */

import { html } from "../vendor/preact.js";

/** @param {{user: import("../api.js").Schemas["UserSummary"]}} props */
export function Name({ user }) {
  if (!user.display_name) return html`<span>${user.username}</span>`;
  return html`<span>${user.display_name} <span class="hint">@${user.username}</span></span>`;
}
