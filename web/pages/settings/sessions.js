/** Where the account is signed in, and what has happened to it. */

import { remove } from "../../api.js";
import { EndlessList } from "../../components/endless-list.js";
import { Time } from "../../components/time.js";
import { useAction, useList } from "../../loading.js";
import { say, sayError } from "../../state.js";
import { html } from "../../vendor/preact.js";

export function Sessions() {
  const list = useList("/sessions?limit=50");
  const events = useList("/users/me/security-events?limit=20");
  const end = async (session) => {
    try {
      await remove(`/sessions/${session.id}`);
      list.set(list.items.filter(({ id }) => id !== session.id));
      say("The session has ended.");
    } catch (error) {
      sayError(error);
    }
  };
  const others = useAction(async () => {
    await remove("/sessions");
    list.set(list.items.filter(({ current }) => current));
    say("All other sessions have ended.");
  });
  /** @param {import("../../api.js").Schemas["SessionOut"]} session */
  const row = (session) => html`<li key=${session.id} class="row">
    <span class="row-text">
      <b>${deviceOf(session.user_agent)}</b> ${session.current && html`<span class="badge">This one</span>`}<br />
      <span class="hint">${session.address ?? "unknown address"} · last seen <${Time} value=${session.last_seen_at} /></span>
    </span>
    ${!session.current && html`<button type="button" class="button button-small" onClick=${() => end(session)}>End</button>`}
  </li>`;
  /** @param {import("../../api.js").Schemas["SecurityEvent"]} item */
  const event = (item) => html`<li key=${item.id} class="row">
    <span class="row-text">${item.event[0].toUpperCase()}${item.event.slice(1).replaceAll("_", " ")}<br />
      <span class="hint">${item.address ?? "unknown address"} · <${Time} value=${item.created_at} /></span>
    </span>
  </li>`;
  return html`<section aria-label="Sessions">
      <${EndlessList} list=${list} label="Sessions" render=${row} empty=${null} />
      ${list.items.length > 1 && html`<p><button type="button" class="button" onClick=${() => others.run()}>End all others</button></p>`}
      ${others.error && html`<p class="form-error" role="alert">${others.error.message}</p>`}
    </section>
    <section aria-labelledby="events-title">
      <h2 id="events-title">Recent activity</h2>
      <${EndlessList} list=${events} label="Recent activity" render=${event} empty=${html`<p class="hint">Nothing yet.</p>`} />
    </section>`;
}

/** "Firefox on Linux", from a user agent. */
function deviceOf(agent) {
  if (!agent) return "Unknown device";
  const browser = /(Edg|Firefox|Chrome|Safari)/.exec(agent)?.[1].replace("Edg", "Edge");
  const system = /(Android|iPhone|iPad|Windows|Mac OS X|Linux)/.exec(agent)?.[1].replace("Mac OS X", "macOS");
  return browser && system ? `${browser} on ${system}` : agent.slice(0, 60);
}
