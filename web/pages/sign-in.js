/** Sign in, with a code where two-factor authentication is on. */

import { ApiError, registration, signIn } from "../api.js";
import { Field, Form } from "../components/form.js";
import { useAction, useTitle } from "../loading.js";
import { forgetPages, href, navigate } from "../router.js";
import { startSession } from "../state.js";
import { html, useState } from "../vendor/preact.js";

/** @param {{here: import("../router.js").Place}} props */
export default function SignIn({ here }) {
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [code, setCode] = useState("");
  const [needsCode, setNeedsCode] = useState(false);
  useTitle("Sign in");
  const action = useAction(async () => {
    try {
      await signIn(name.trim(), password, needsCode ? code.replace(/\s/g, "") : undefined);
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== "otp_required") throw error;
      setNeedsCode(true);
      return;
    }
    await startSession();
    forgetPages();
    navigate(nextPath(here), { replace: true });
  });
  return html`<div class="small-page">
    <h1 tabindex="-1">Sign in</h1>
    <${Form} action=${action} submit="Sign in">
      ${needsCode
        ? html`<${Field}
            label="Code"
            hint="From your authenticator app, or one of your recovery codes."
            autocomplete="one-time-code"
            inputmode="numeric"
            autofocus
            value=${code}
            onText=${setCode}
            error=${action.fields.otp}
          />`
        : html`<${Field} label="E-mail address or username" autocomplete="username" autocapitalize="none" value=${name} onText=${setName} error=${action.fields.username} />
            <${Field} label="Password" type="password" autocomplete="current-password" value=${password} onText=${setPassword} error=${action.fields.password} />`}
    <//>
    <p class="beside-form"><a href=${href("/password-reset")}>Forgotten your password?</a></p>
    ${registration !== "closed" && html`<p>No account yet? <a href=${href("/sign-up")}>Sign up</a></p>`}
  </div>`;
}

/**
 * Where the reader wanted to go: a path of the client.
 * @param {import("../router.js").Place} here
 */
function nextPath(here) {
  const next = here.query.get("next") ?? "/";
  return /^\/(?!\/)/.test(next) ? next : "/";
}
