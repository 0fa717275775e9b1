/** Beside the posts, where there is room: popular tags, and what this site is made of. */

import { root } from "../api.js";
import { useLoaded, useRecovery } from "../loading.js";
import { href, tagPath } from "../router.js";
import { shortNumber } from "../text.js";
import { html } from "../vendor/preact.js";
import { FeedLink } from "./feed-link.js";

export function Sidebar() {
  const { data: tags, error, reload } = useLoaded("/tags?limit=12");
  useRecovery(error, reload);
  // The links below the tags appear with them, so that they do not move.
  const isSettled = tags !== undefined || error;
  return html`<div class="sidebar">
    <section>
      <h2>Popular tags</h2>
      <ul class="side-tags">
        ${(tags ?? []).map(
          (/** @type {import("../api.js").Schemas["TagOut"]} */ { name, posts }) => html`<li key=${name}>
            <a href=${href(tagPath(name))}>#${name}</a><span>${shortNumber(posts)}</span>
          </li>`,
        )}
      </ul>
      ${tags?.length === 0 && html`<p class="hint">No post has a tag yet.</p>`}
      ${isSettled && html`<p><a class="quiet" href=${href("/tags")}>All tags</a></p>`}
    </section>
    ${isSettled &&
    html`<p class="hint"><a class="quiet" href="${root}/docs">API documentation</a></p>
      <p class="hint"><${FeedLink} path="/posts.atom" title="Atom feed of new posts" /></p>`}
  </div>`;
}
