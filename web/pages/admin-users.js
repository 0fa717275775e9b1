/** For admins: all accounts, their roles, and whether they are active. */

import { patch } from "../api.js";
import { Avatar } from "../components/avatar.js";
import { EndlessList } from "../components/endless-list.js";
import { MemberPage } from "../components/member-page.js";
import { Empty } from "../components/states.js";
import { useList, useSettled, useTitle } from "../loading.js";
import { href, userPath } from "../router.js";
import { say, sayError, useAccount } from "../state.js";
import { html, useState } from "../vendor/preact.js";

const ROLES = ["user", "moderator", "admin"];

/** @param {{here: import("../router.js").Place}} props */
export default function Users({ here }) {
  const me = useAccount();
  if (me && me.role !== "admin") return html`<${Empty} isPage title="This page is for admins"><p><a href=${href("/")}>Go to the front page</a>.</p><//>`;
  return html`<${MemberPage} here=${here}><${List} me=${me} /><//>`;
}

/** @param {{me: import("../api.js").Schemas["OwnAccount"]}} props */
function List({ me }) {
  const [email, setEmail] = useState("");
  const [role, setRole] = useState("");
  const settled = useSettled(email.trim());
  const filters = new URLSearchParams({ limit: "50", ...(settled && { email: settled }), ...(role && { role }) });
  const list = useList(`/users?${filters}`);
  useTitle("Users");
  const change = async (/** @type {import("../api.js").Schemas["Account"]} */ user, /** @type {object} */ values, /** @type {string} */ done) => {
    try {
      const saved = await patch(`/users/${user.id}`, values);
      list.set(list.items.map((/** @type {import("../api.js").Schemas["Account"]} */ item) => (item.id === saved.id ? { ...item, ...saved } : item)));
      say(done);
    } catch (error) {
      list.set([...list.items]);
      sayError(error);
    }
  };
  /** @param {import("../api.js").Schemas["Account"]} user */
  const row = (user) => html`<li key=${user.id} class="row">
    <${Avatar} user=${user} size="medium" />
    <span class="row-text">
      <a href=${href(userPath(user))}>${user.username}</a> ${!user.is_active && html`<span class="badge">Disabled</span>`}<br />
      <span class="hint">${user.email}${user.email_verified ? "" : " (not confirmed)"}</span>
    </span>
    <select class="input role" aria-label=${`Role of ${user.username}`} disabled=${user.id === me.id} onChange=${(/** @type {any} */ event) => change(user, { role: event.currentTarget.value }, "The role is changed.")}>
      ${ROLES.map((name) => html`<option key=${name} value=${name} selected=${user.role === name}>${name}</option>`)}
    </select>
    ${user.id !== me.id &&
    html`<button type="button" class="button button-small" aria-label=${`${user.is_active ? "Disable" : "Enable"} ${user.username}`} onClick=${() => change(user, { is_active: !user.is_active }, user.is_active ? "The account is disabled." : "The account is active again.")}>
      ${user.is_active ? "Disable" : "Enable"}
    </button>`}
  </li>`;
  return html`<div class="narrow">
    <div class="page-head"><h1 tabindex="-1">Users</h1></div>
    <div class="filters">
      <input class="input" type="search" aria-label="E-mail address" placeholder="E-mail address" value=${email} onInput=${(/** @type {any} */ event) => setEmail(event.currentTarget.value)} />
      <select class="input role" aria-label="Role" onChange=${(/** @type {any} */ event) => setRole(event.currentTarget.value)}>
        <option value="">Every role</option>
        ${ROLES.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
      </select>
    </div>
    <${EndlessList} list=${list} label="Users" render=${row} empty=${html`<${Empty} title="No such account" />`} />
  </div>`;
}
