/** Report a post, comment or user to the moderators. */

import { newKey, post } from "../api.js";
import { useAction } from "../loading.js";
import { say } from "../state.js";
import { html, useMemo, useState } from "../vendor/preact.js";
import { Dialog } from "./dialog.js";
import { Field, Form } from "./form.js";

/** @param {{target: {post_id?: number, comment_id?: number, user_id?: number}, what: string, close: () => void}} props */
export function ReportDialog({ target, what, close }) {
  const [reason, setReason] = useState("");
  const key = useMemo(newKey, []);
  const action = useAction(async () => {
    await post("/reports", { ...target, reason }, { key });
    say("Thank you. The moderators will look at it.");
    close();
  });
  return html`<${Dialog} title=${`Report this ${what}`} close=${close}>
    <${Form} action=${action} submit="Send report">
      <${Field}
        label="What is wrong with it?"
        hint="Only moderators read this."
        rows=${3}
        maxLength=${500}
        value=${reason}
        onText=${setReason}
        error=${action.fields.reason}
      />
    <//>
  <//>`;
}
