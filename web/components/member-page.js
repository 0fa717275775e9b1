/** A page for signed-in users only: others are asked to sign in, and come back. */

import { href } from "../router.js";
import { useAccount } from "../state.js";
import { html } from "../vendor/preact.js";
import { Empty } from "./states.js";

export function MemberPage({ here, children }) {
  const me = useAccount();
  if (me) return children;
  return html`<${Empty} isPage title="Please sign in">
    <p>This page needs an account.</p>
    <a class="button button-primary" href=${href(`/sign-in?next=${encodeURIComponent(here.path)}`)}>Sign in</a>
  <//>`;
}
