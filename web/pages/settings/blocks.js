/** Users whom the reader has blocked. */

import { remove } from "../../api.js";
import { Avatar } from "../../components/avatar.js";
import { EndlessList } from "../../components/endless-list.js";
import { useList } from "../../loading.js";
import { forgetPages, href, userPath } from "../../router.js";
import { sayError } from "../../state.js";
import { html } from "../../vendor/preact.js";

export function Blocks() {
  const list = useList("/users/me/blocks?limit=50");
  const unblock = async (user) => {
    try {
      await remove(`/users/${user.id}/block`);
      list.set(list.items.filter(({ id }) => id !== user.id));
      forgetPages();
    } catch (error) {
      sayError(error);
    }
  };
  /** @param {import("../../api.js").Schemas["UserSummary"]} user */
  const row = (user) => html`<li key=${user.id} class="row">
    <${Avatar} user=${user} size="medium" />
    <span class="row-text"><a href=${href(userPath(user))}>${user.username}</a></span>
    <button type="button" class="button button-small" aria-label=${`Unblock ${user.username}`} onClick=${() => unblock(user)}>Unblock</button>
  </li>`;
  return html`<section aria-label="Blocked users">
    <p>You do not see what they write, and they can neither follow you nor comment on your posts. They do not learn of it.</p>
    <${EndlessList} list=${list} label="Blocked users" render=${row} empty=${html`<p class="hint">You have blocked no user.</p>`} />
  </section>`;
}
