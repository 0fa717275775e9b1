/** Invites, for accounts that may create them. */

import { newKey, post, remove } from "../../api.js";
import { EndlessList } from "../../components/endless-list.js";
import { Field, Form } from "../../components/form.js";
import { Secret } from "../../components/secret.js";
import { Time } from "../../components/time.js";
import { useAction, useList } from "../../loading.js";
import { href } from "../../router.js";
import { sayError } from "../../state.js";
import { html, useRef, useState } from "../../vendor/preact.js";

export function Invites() {
  const list = useList("/invites?limit=50");
  const [uses, setUses] = useState("1");
  const [made, setMade] = useState(null);
  const key = useRef(newKey());
  const action = useAction(async () => {
    const invite = await post("/invites", { max_uses: Number(uses) }, { key: key.current });
    key.current = newKey();
    setMade(`${location.origin}${href("/sign-up")}#invite=${invite.token}`);
    list.set([invite, ...list.items]);
  });
  const end = async (/** @type {import("../../api.js").Schemas["InviteOut"]} */ item) => {
    try {
      await remove(`/invites/${item.id}`);
      list.set(list.items.filter((/** @type {import("../../api.js").Schemas["InviteOut"]} */ { id }) => id !== item.id));
    } catch (error) {
      sayError(error);
    }
  };
  /** @param {import("../../api.js").Schemas["InviteOut"]} item */
  const row = (item) => html`<li key=${item.id} class="row">
    <span class="row-text">Used ${item.uses} of ${item.max_uses} times<br /><span class="hint">made <${Time} value=${item.created_at} />, ends <${Time} value=${item.expires_at} /></span></span>
    <button type="button" class="button button-small" onClick=${() => end(item)}>End</button>
  </li>`;
  return html`<section aria-label="Invites">
    <p>Where signing up needs an invite, give this link to people whom you want here.</p>
    ${made && html`<${Secret} label="The link, shown only now:" text=${made} />`}
    <${Form} action=${action} submit="Create an invite" isQuiet>
      <${Field} label="For how many accounts" type="number" min="1" max="100" inputmode="numeric" value=${uses} onText=${setUses} error=${action.fields.max_uses} />
    <//>
    <${EndlessList} list=${list} label="Invites" render=${row} empty=${html`<p class="hint">You have none.</p>`} />
  </section>`;
}
