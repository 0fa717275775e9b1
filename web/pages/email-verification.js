/** Confirm an e-mail address with the token of a mail (in the fragment). */

import { post } from "../api.js";
import { Empty, Failed, Loading } from "../components/states.js";
import { useTitle } from "../loading.js";
import { href } from "../router.js";
import { account, useAccount } from "../state.js";
import { html, useEffect, useState } from "../vendor/preact.js";

export default function EmailVerification({ here }) {
  const token = new URLSearchParams(here.hash).get("token");
  const me = useAccount();
  const [state, setState] = useState({ isDone: false, error: null });
  useTitle("Confirm your address");
  const confirm = async () => {
    try {
      await post("/email-verification/confirm", { token });
      if (account.value) account.set({ ...account.value, email_verified: true });
      setState({ isDone: true, error: null });
    } catch (error) {
      setState({ isDone: false, error });
    }
  };
  useEffect(() => {
    if (token) confirm();
  }, [token]);
  if (state.isDone) {
    return html`<${Empty} isPage title="Your address is confirmed">
      <p role="status">Thank you. <a href=${href(me ? "/" : "/sign-in")}>${me ? "Go to the front page" : "Sign in"}</a></p>
    <//>`;
  }
  if (!token || state.error?.code === "invalid_token") {
    return html`<${Empty} isPage title="This link does not work">
      <p>It was used already, or is older than a day. <a href=${href("/settings/account")}>Ask for a new one</a> in your settings.</p>
    <//>`;
  }
  if (state.error) return html`<${Failed} isPage error=${state.error} retry=${confirm} />`;
  return html`<${Loading} rows=${1} label="Confirming your address" />`;
}
