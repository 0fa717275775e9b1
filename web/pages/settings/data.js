/** Take everything along, or leave. */

import { ApiError, remove, root } from "../../api.js";
import { Dialog } from "../../components/dialog.js";
import { Field, Form } from "../../components/form.js";
import { useAction } from "../../loading.js";
import { forgetPages, navigate } from "../../router.js";
import { endSession, say } from "../../state.js";
import { html, useState } from "../../vendor/preact.js";

/** @param {{me: import("../../api.js").Schemas["OwnAccount"]}} props */
export function Data({ me }) {
  const [isLeaving, setLeaving] = useState(false);
  return html`<section aria-labelledby="export-title">
      <h2 id="export-title">Export</h2>
      <p>A ZIP of JSON files with everything of your account, and your pictures.</p>
      <p><a class="button" href="${root}/users/me/export" download>Download your data</a></p>
    </section>
    <section aria-labelledby="leave-title">
      <h2 id="leave-title">Delete your account</h2>
      <p>Your posts, comments, votes, pictures and everything else go at once. This cannot be undone.</p>
      <p><button type="button" class="button button-danger" onClick=${() => setLeaving(true)}>Delete the account</button></p>
    </section>
    ${isLeaving && html`<${Leave} me=${me} close=${() => setLeaving(false)} />`}`;
}

/** @param {{me: import("../../api.js").Schemas["OwnAccount"], close: () => void}} props */
function Leave({ me, close }) {
  const [name, setName] = useState("");
  const action = useAction(async () => {
    if (name.trim() !== me.username) {
      throw new ApiError(0, "wrong_name", "This is not your username.", { name: "This is not your username." });
    }
    await remove("/users/me");
    endSession();
    forgetPages();
    say("Your account is deleted.");
    navigate("/", { replace: true });
  });
  return html`<${Dialog} title="Delete your account?" close=${close}>
    <p>Everything that you wrote goes with it. Think of the export first.</p>
    <${Form} action=${action} submit="Delete everything" isDanger>
      <${Field} label=${`Your username (${me.username}), to be sure`} autocomplete="off" autocapitalize="none" value=${name} onText=${setName} error=${action.fields.name} />
    <//>
  <//>`;
}
