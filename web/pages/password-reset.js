/** A forgotten password: ask for a mail, or choose a new password with the token of the mail (in the fragment). */

import { post } from "../api.js";
import { Field, Form } from "../components/form.js";
import { Empty } from "../components/states.js";
import { useAction, useTitle } from "../loading.js";
import { href, navigate } from "../router.js";
import { endSession, say } from "../state.js";
import { html, useState } from "../vendor/preact.js";

export default function PasswordReset({ here }) {
  const token = new URLSearchParams(here.hash).get("token");
  useTitle("Reset your password");
  return token ? html`<${NewPassword} token=${token} />` : html`<${AskForMail} />`;
}

function AskForMail() {
  const [email, setEmail] = useState("");
  const [isSent, setSent] = useState(false);
  const action = useAction(async () => {
    await post("/password-reset", { email: email.trim() });
    setSent(true);
  });
  if (isSent) {
    return html`<${Empty} isPage title="Look into your mailbox">
      <p role="status">If ${email.trim()} belongs to an account, a mail with a link is on its way. The link works for an hour.</p>
    <//>`;
  }
  return html`<div class="small-page">
    <h1 tabindex="-1">Reset your password</h1>
    <p class="hint">We send you a link with which you choose a new one.</p>
    <${Form} action=${action} submit="Send the link">
      <${Field} label="E-mail address" type="email" autocomplete="email" value=${email} onText=${setEmail} error=${action.fields.email} />
    <//>
    <p class="beside-form"><a href=${href("/sign-in")}>Back to signing in</a></p>
  </div>`;
}

function NewPassword({ token }) {
  const [password, setPassword] = useState("");
  const action = useAction(async () => {
    await post("/password-reset/confirm", { token, password });
    endSession();
    say("Your password is changed. Sign in with it.");
    navigate("/sign-in", { replace: true });
  });
  return html`<div class="small-page">
    <h1 tabindex="-1">Choose a new password</h1>
    <p class="hint">All your other sessions will be signed out.</p>
    <${Form} action=${action} submit="Change the password">
      <${Field} label="New password" type="password" autocomplete="new-password" value=${password} onText=${setPassword} error=${action.fields.password} />
    <//>
    ${action.error?.code === "invalid_token" && html`<p class="beside-form"><a href=${href("/password-reset")}>Send me a new link</a></p>`}
  </div>`;
}
