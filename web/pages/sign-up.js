/** Create an account, and sign in. */

import { newKey, registration, signIn, signUp } from "../api.js";
import { Field, Form } from "../components/form.js";
import { Empty } from "../components/states.js";
import { useAction, useTitle } from "../loading.js";
import { forgetPages, href, navigate } from "../router.js";
import { say, startSession } from "../state.js";
import { html, useMemo, useState } from "../vendor/preact.js";

/** @param {{here: import("../router.js").Place}} props */
export default function SignUp({ here }) {
  const [email, setEmail] = useState("");
  const [username, setUsername] = useState("");
  const [password, setPassword] = useState("");
  const [invite, setInvite] = useState(new URLSearchParams(here.hash).get("invite") ?? "");
  // Another attempt with other values is another request, so it has another key.
  const key = useMemo(newKey, [email, username, password, invite]);
  useTitle("Sign up");
  const action = useAction(async () => {
    const account = { email: email.trim(), password, ...(username && { username: username.trim() }) };
    await signUp({ ...account, ...(invite && { invite: invite.trim() }) }, key);
    await signIn(account.email, password);
    await startSession();
    forgetPages();
    say("Welcome! We have sent you a mail to confirm your address.");
    navigate("/", { replace: true });
  });
  if (registration === "closed") {
    return html`<${Empty} isPage title="This site takes no new accounts at the moment">
      <p><a href=${href("/sign-in")}>Sign in</a> if you have one.</p>
    <//>`;
  }
  const { fields } = action;
  return html`<div class="small-page">
    <h1 tabindex="-1">Create an account</h1>
    <${Form} action=${action} submit="Sign up">
      <${Field} label="E-mail address" hint="Only you and the operators of this site see it." type="email" autocomplete="email" value=${email} onText=${setEmail} error=${fields.email} />
      <${Field} label="Username" hint="3 to 30 letters, digits, dots, hyphens or underscores." autocomplete="username" autocapitalize="none" spellcheck=${false} maxLength=${30} value=${username} onText=${setUsername} error=${fields.username} />
      <${Field} label="Password" hint="Long is good: a few words that do not belong together." type="password" autocomplete="new-password" value=${password} onText=${setPassword} error=${fields.password} />
      ${registration === "invite" &&
      html`<${Field} label="Invite" hint="Signing up here needs an invite of a member." autocomplete="off" value=${invite} onText=${setInvite} error=${fields.invite} />`}
    <//>
    <p class="beside-form">Have an account already? <a href=${href("/sign-in")}>Sign in</a></p>
  </div>`;
}
