/** Remove a post or comment as a moderator, with a reason that its author sees. */

import { post } from "../api.js";
import { useAction } from "../loading.js";
import { say } from "../state.js";
import { html, useState } from "../vendor/preact.js";
import { Dialog } from "./dialog.js";
import { Field, Form } from "./form.js";

/** @param {{path: string, what: string, done: (reason: string) => void, close: () => void}} props */
export function RemovalDialog({ path, what, done, close }) {
  const [reason, setReason] = useState("");
  const action = useAction(async () => {
    const state = await post(path, { reason });
    done(state.reason);
    say(`The ${what} is removed. Its author sees the reason.`);
    close();
  });
  return html`<${Dialog} title=${`Remove this ${what}?`} close=${close}>
    <${Form} action=${action} submit="Remove" isDanger>
      <${Field}
        label="Reason"
        hint=${`The author of the ${what} sees it.`}
        maxLength=${500}
        value=${reason}
        onText=${setReason}
        error=${action.fields.reason}
      />
    <//>
  <//>`;
}
