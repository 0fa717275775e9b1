/** A page for signed-in users only: others are asked to sign in, and come back. */

import { registration } from "../api.js";
import { href } from "../router.js";
import { useAccount } from "../state.js";
import { html } from "../vendor/preact.js";
import { Empty } from "./states.js";

/** @param {{here: import("../router.js").Place, children?: unknown}} props */
export function MemberPage({ here, children }) {
  const me = useAccount();
  if (me) return children;
  return html`<${Empty} isPage title="Please sign in">
    <p>This page needs an account.</p>
    <p class="form-buttons is-centred">
      <a class="button button-primary" href=${href(`/sign-in?next=${encodeURIComponent(here.path)}`)}>Sign in</a>
      ${registration !== "closed" && html`<a class="button" href=${href("/sign-up")}>Create an account</a>`}
    </p>
  <//>`;
}
