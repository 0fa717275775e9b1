/** Beside the posts, where there is room: popular tags, and what this site is made of. */

import { root } from "../api.js";
import { useLoaded } from "../loading.js";
import { href, tagPath } from "../router.js";
import { shortNumber } from "../text.js";
import { html } from "../vendor/preact.js";

export function Sidebar() {
  const { data: tags } = useLoaded("/tags?limit=12");
  return html`<div class="sidebar">
    <section>
      <h2>Popular tags</h2>
      <ul class="side-tags">
        ${(tags ?? []).map(
          ({ name, posts }) => html`<li key=${name}>
            <a href=${href(tagPath(name))}>#${name}</a><span>${shortNumber(posts)}</span>
          </li>`,
        )}
      </ul>
      ${tags?.length === 0 && html`<p class="hint">No post has a tag yet.</p>`}
      <p><a class="quiet" href=${href("/tags")}>All tags</a></p>
    </section>
    <p class="hint"><a class="quiet" href="${root}/docs">API documentation</a></p>
  </div>`;
}
