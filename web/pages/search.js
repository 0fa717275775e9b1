/** Search: posts by their words, people and tags by their beginning. */

import { Avatar } from "../components/avatar.js";
import { Name } from "../components/name.js";
import { Empty } from "../components/states.js";
import { useLoaded, useTitle } from "../loading.js";
import { href, tagPath, userPath } from "../router.js";
import { html } from "../vendor/preact.js";
import { Feed } from "./front.js";

const TAG = /^[\p{L}\p{N}_-]{1,30}$/u;
const NAME = /^[A-Za-z0-9][\w.-]{0,29}$/;

export default function Search({ here }) {
  const query = (here.query.get("q") ?? "").trim();
  const word = query.replace(/^[#@]/, "");
  const encoded = encodeURIComponent(word);
  const { data: people } = useLoaded(NAME.test(word) && !query.startsWith("#") ? `/users/search?q=${encoded}&limit=4` : null);
  const { data: tags } = useLoaded(TAG.test(word) && !query.startsWith("@") ? `/tags?prefix=${encoded}&limit=8` : null);
  useTitle(query ? `Search: ${query}` : "Search");
  if (!query) {
    return html`<${Empty} isPage title="Search">
      <p>Type above to find posts by their words, people by their names, and tags.</p>
    <//>`;
  }
  const path = `/posts?search=${encodeURIComponent(query)}&limit=20`;
  return html`<div class="narrow">
    <h1 tabindex="-1">“${query}”</h1>
    ${tags?.length > 0 &&
    html`<ul class="tags" aria-label="Tags">
      ${tags.map(({ name, posts }) => html`<li key=${name}><a href=${href(tagPath(name))}>#${name}</a> <span class="hint">${posts}</span></li>`)}
    </ul>`}
    ${people?.length > 0 &&
    html`<ul class="list" aria-label="People">
      ${people.map(
        (user) => html`<li class="row" key=${user.id}>
          <a class="row-link" href=${href(userPath(user))}>
            <${Avatar} user=${user} size="medium" /><${Name} user=${user} />
          </a>
        </li>`,
      )}
    </ul>`}
    <h2 class="section-title">Posts</h2>
    <${Feed}
      key=${path}
      path=${path}
      label="Posts found"
      empty=${html`<${Empty} title="No post has these words"><p>Try fewer or other words.</p><//>`}
    />
  </div>`;
}

