/** Two-factor authentication: set up with a QR code, recovery codes, switch off. */

import { newKey, post, remove } from "../../api.js";
import { Field, Form } from "../../components/form.js";
import { Failed, Loading } from "../../components/states.js";
import { useAction, useLoaded } from "../../loading.js";
import { say } from "../../state.js";
import { count } from "../../text.js";
import { html, useMemo, useState } from "../../vendor/preact.js";

export function Security() {
  const state = useLoaded("/users/me/totp");
  const [secret, setSecret] = useState(null);
  const [codes, setCodes] = useState(null);
  if (state.error) return html`<${Failed} error=${state.error} retry=${state.reload} />`;
  if (!state.data) return html`<${Loading} rows=${2} />`;
  if (codes) return html`<${Codes} codes=${codes} />`;
  if (state.data.enabled) {
    return html`<${Off} left=${state.data.recovery_codes_left} done=${() => state.set({ enabled: false, recovery_codes_left: 0 })} />`;
  }
  if (secret) {
    const done = (made) => {
      setCodes(made);
      state.set({ enabled: true, recovery_codes_left: made.length });
    };
    return html`<${Confirm} secret=${secret} done=${done} />`;
  }
  return html`<${Begin} done=${setSecret} />`;
}

function Begin({ done }) {
  const [password, setPassword] = useState("");
  const action = useAction(async () => done(await post("/users/me/totp", { current_password: password })));
  return html`<section aria-label="Set up">
    <p>With a second factor, signing in also needs a code of an app on your phone. A stolen password alone is useless then.</p>
    <${Form} action=${action} submit="Set it up">
      <${Field} label="Current password" type="password" autocomplete="current-password" value=${password} onText=${setPassword} error=${action.fields.current_password} />
    <//>
  </section>`;
}

/** @param {{secret: import("../../api.js").Schemas["TotpSecret"], done: (codes: string[]) => void}} props */
function Confirm({ secret, done }) {
  const [code, setCode] = useState("");
  const key = useMemo(newKey, [code]);
  const action = useAction(async () => {
    const { recovery_codes: codes } = await post("/users/me/totp/confirm", { code: code.replace(/\s/g, "") }, { key });
    say("Two-factor sign-in is on.");
    done(codes);
  });
  return html`<section aria-label="Confirm">
    <p>Scan this with an authenticator app, such as Aegis, 2FAS or Google Authenticator.</p>
    <img class="qr" alt="QR code with the secret below" src=${`data:image/svg+xml,${encodeURIComponent(secret.qr_svg)}`} />
    <p>Or enter the secret by hand:</p>
    <p class="secret">${secret.secret.replace(/.{4}(?=.)/g, "$& ")}</p>
    <${Form} action=${action} submit="Turn it on">
      <${Field} label="Code that the app shows" autocomplete="one-time-code" inputmode="numeric" value=${code} onText=${setCode} error=${action.fields.code} />
    <//>
  </section>`;
}

function Codes({ codes }) {
  const file = `data:text/plain,${encodeURIComponent(`${codes.join("\n")}\n`)}`;
  return html`<section aria-label="Recovery codes">
    <p class="notice" role="status">Two-factor sign-in is on. Keep these recovery codes: each works once, when you do not have your phone. They are shown only now.</p>
    <ul class="codes">${codes.map((code) => html`<li key=${code}>${code}</li>`)}</ul>
    <p><a class="button" href=${file} download="recovery-codes.txt">Download them</a></p>
  </section>`;
}

function Off({ left, done }) {
  const [password, setPassword] = useState("");
  const action = useAction(async () => {
    await remove("/users/me/totp", { body: { current_password: password } });
    say("Two-factor sign-in is off.");
    done();
  });
  return html`<section aria-label="Turn off">
    <p>Two-factor sign-in is on. You have ${count(left, "recovery code")} left.</p>
    <${Form} action=${action} submit="Turn it off" isQuiet>
      <${Field} label="Current password" type="password" autocomplete="current-password" value=${password} onText=${setPassword} error=${action.fields.current_password} />
    <//>
  </section>`;
}
