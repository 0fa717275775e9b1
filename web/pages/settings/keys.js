/** API keys for programs and feed readers. */

import { newKey, post, remove } from "../../api.js";
import { EndlessList } from "../../components/endless-list.js";
import { Confirm } from "../../components/dialog.js";
import { Field, Form } from "../../components/form.js";
import { Secret } from "../../components/secret.js";
import { Time } from "../../components/time.js";
import { useAction, useList } from "../../loading.js";
import { say } from "../../state.js";
import { html, useId, useRef, useState } from "../../vendor/preact.js";

const SCOPES = [
  ["read", "Read"],
  ["read write", "Read and write"],
  ["feed", "Feeds only (for feed readers)"],
];

export function Keys() {
  const list = useList("/api-keys?limit=50");
  const id = useId();
  const [name, setName] = useState("");
  const [scopes, setScopes] = useState("read");
  const [made, setMade] = useState(null);
  const key = useRef(newKey());
  const action = useAction(async () => {
    const created = await post("/api-keys", { name, scopes: scopes.split(" ") }, { key: key.current });
    key.current = newKey();
    setMade(created.key);
    setName("");
    list.set([created, ...list.items]);
  });
  const [ending, setEnding] = useState(/** @type {import("../../api.js").Schemas["ApiKeyOut"] | null} */ (null));
  const deletion = useAction(async () => {
    await remove(`/api-keys/${ending.id}`);
    list.set(list.items.filter((/** @type {import("../../api.js").Schemas["ApiKeyOut"]} */ other) => other.id !== ending.id));
    setEnding(null);
    say("The key no longer works.");
  });
  /** @param {import("../../api.js").Schemas["ApiKeyOut"]} item */
  const row = (item) => html`<li key=${item.id} class="row">
    <span class="row-text"><b>${item.name}</b> <span class="badge">${item.scopes.join(", ")}</span><br />
      <span class="hint">made <${Time} value=${item.created_at} />${item.last_used_at ? html`, used <${Time} value=${item.last_used_at} />` : ", never used"}</span>
    </span>
    <button type="button" class="button button-small" aria-label=${`Delete ${item.name}`} onClick=${() => setEnding(item)}>Delete</button>
  </li>`;
  return html`<section aria-label="New key">
      <p>A program that acts for you signs in with a key. It cannot change your account or password.</p>
      ${made && html`<${Secret} label="Your new key, shown only now:" text=${made} />`}
      <${Form} action=${action} submit="Create a key" isQuiet>
        <${Field} label="Name" hint="What it is for." maxLength=${100} value=${name} onText=${setName} error=${action.fields.name} />
        <div class="field">
          <label for=${id}>It may</label>
          <select id=${id} onChange=${(/** @type {any} */ event) => setScopes(event.currentTarget.value)}>
            ${SCOPES.map(([value, text]) => html`<option key=${value} value=${value} selected=${value === scopes}>${text}</option>`)}
          </select>
        </div>
      <//>
    </section>
    <section aria-labelledby="keys-title">
      <h2 id="keys-title">Your keys</h2>
      <${EndlessList} list=${list} label="API keys" render=${row} empty=${html`<p class="hint">You have none.</p>`} />
      ${ending && html`<${Confirm} title=${`Delete the key “${ending.name}”?`} text="Programs that use it can no longer act for you." yes="Delete" action=${deletion} close=${() => setEnding(null)} />`}
    </section>`;
}
