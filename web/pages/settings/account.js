/** E-mail address and password. Both need the current password. */

import { patch, post } from "../../api.js";
import { Field, Form } from "../../components/form.js";
import { useAction } from "../../loading.js";
import { account, say } from "../../state.js";
import { html, useState } from "../../vendor/preact.js";

export function Account({ me }) {
  return html`<${Email} me=${me} /><${Password} />`;
}

/** @param {{me: import("../../api.js").Schemas["OwnAccount"]}} props */
function Email({ me }) {
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const action = useAction(async () => {
    const saved = await patch("/users/me", { email: email.trim(), current_password: password });
    account.set({ ...account.value, ...saved });
    setEmail("");
    setPassword("");
    say("Your address is changed. A mail to confirm it is on its way.");
  });
  const verification = useAction(async () => {
    await post("/email-verification");
    say("A mail with a link is on its way.");
  });
  return html`<section aria-labelledby="email-title">
    <h2 id="email-title">E-mail address</h2>
    <p>
      ${me.email} <span class="badge">${me.email_verified ? "Confirmed" : "Not confirmed"}</span>
      ${!me.email_verified && html` <button type="button" class="link-button" onClick=${() => verification.run()}>Send the mail again</button>`}
    </p>
    ${verification.error && html`<p class="form-error" role="alert">${verification.error.message}</p>`}
    <${Form} action=${action} submit="Change the address" isQuiet>
      <${Field} label="New address" type="email" autocomplete="email" value=${email} onText=${setEmail} error=${action.fields.email} />
      <${Field} label="Current password" type="password" autocomplete="current-password" value=${password} onText=${setPassword} error=${action.fields.current_password} />
    <//>
  </section>`;
}

function Password() {
  const [current, setCurrent] = useState("");
  const [password, setPassword] = useState("");
  const action = useAction(async () => {
    await patch("/users/me", { password, current_password: current });
    setCurrent("");
    setPassword("");
    say("Your password is changed. Other sessions and all API keys have ended.");
  });
  return html`<section aria-labelledby="password-title">
    <h2 id="password-title">Password</h2>
    <p>A change ends your other sessions and all API keys.</p>
    <${Form} action=${action} submit="Change the password" isQuiet>
      <${Field} label="Current password" type="password" autocomplete="current-password" value=${current} onText=${setCurrent} error=${action.fields.current_password} />
      <${Field} label="New password" type="password" autocomplete="new-password" value=${password} onText=${setPassword} error=${action.fields.password} />
    <//>
  </section>`;
}
