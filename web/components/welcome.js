/** What visitors see where reading needs an account. */

import { registration, root } from "../api.js";
import { href } from "../router.js";
import { html } from "../vendor/preact.js";
import { Icon } from "./icon.js";

const POINTS = [
  ["comment", "Posts and threads", "Write with pictures and tags, and talk in threads that stay readable."],
  ["up", "The best rises", "Votes decide what is hot. Follow people and tags for a page of your own."],
  ["lock", "Yours", "No trackers. Take everything with you, or delete it, whenever you like."],
];

export function Welcome() {
  return html`<div class="welcome">
    <h1 tabindex="-1">A quiet place for<br />good conversations</h1>
    <p class="lead">Posts, comments and votes, in an order that makes sense. Reading here needs an account.</p>
    <p class="welcome-buttons">
      ${registration !== "closed" &&
      html`<a class="button button-primary button-large" href=${href("/sign-up")}>Create an account</a>`}
      <a class="button button-large" href=${href("/sign-in")}>Sign in</a>
    </p>
    <ul class="points">
      ${POINTS.map(
        ([icon, title, text]) => html`<li key=${title}>
          <${Icon} name=${icon} />
          <h2>${title}</h2>
          <p>${text}</p>
        </li>`,
      )}
    </ul>
    <p class="hint">For developers: <a href="${root}/docs">the API behind this page</a>.</p>
  </div>`;
}
