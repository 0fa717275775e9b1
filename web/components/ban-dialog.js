/** Ban a user as a moderator, for a time or for good. */

import { post } from "../api.js";
import { useAction } from "../loading.js";
import { say } from "../state.js";
import { html, useId, useState } from "../vendor/preact.js";
import { Dialog } from "./dialog.js";
import { Field, Form } from "./form.js";

const DAYS = [
  [1, "One day"],
  [7, "One week"],
  [30, "30 days"],
  [0, "For good"],
];

/**
 * The end of a ban of so many days; null for good.
 * @param {number} days
 */
export const banEnd = (days) => (days === 0 ? null : new Date(Date.now() + days * 86_400_000).toISOString());

/** @param {{user: import("../api.js").Schemas["UserProfile"], close: () => void}} props */
export function BanDialog({ user, close }) {
  const [reason, setReason] = useState("");
  const [days, setDays] = useState(7);
  const action = useAction(async () => {
    await post(`/users/${user.id}/ban`, { reason, until: banEnd(days) });
    say(`${user.username} is banned and signed out.`);
    close();
  });
  return html`<${Dialog} title=${`Ban ${user.username}?`} close=${close}>
    <${Form} action=${action} submit="Ban" isDanger>
      <${Field} label="Reason" hint="Shown when the user tries to sign in." maxLength=${500} value=${reason} onText=${setReason} error=${action.fields.reason} />
      <${BanDays} days=${days} setDays=${setDays} />
    <//>
  <//>`;
}

/** @param {{days: number, setDays: (days: number) => void}} props */
export function BanDays({ days, setDays }) {
  const id = useId();
  return html`<div class="field">
    <label for=${id}>How long</label>
    <select id=${id} value=${days} onChange=${(/** @type {any} */ event) => setDays(Number(event.currentTarget.value))}>
      ${DAYS.map(([value, text]) => html`<option key=${value} value=${value} selected=${value === days}>${text}</option>`)}
    </select>
  </div>`;
}
