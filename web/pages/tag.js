/** The posts of a tag. */

import { FeedLink } from "../components/feed-link.js";
import { Empty, Failed } from "../components/states.js";
import { Tabs } from "../components/tabs.js";
import { FollowButton } from "../components/tag-row.js";
import { useLoaded, useTitle } from "../loading.js";
import { tagPath } from "../router.js";
import { count } from "../text.js";
import { html } from "../vendor/preact.js";
import { Feed } from "./front.js";

const SORTS = ["new", "hot", "top"];

/** @param {{name: string, here: import("../router.js").Place}} props */
export default function Tag({ name, here }) {
  const sort = SORTS.find((one) => one === here.query.get("sort")) ?? "new";
  const encoded = encodeURIComponent(name);
  const tag = useLoaded(`/tags/${encoded}`);
  const path = `/posts?tag=${encoded}&sort=${sort}&limit=20`;
  useTitle(`#${name}`);
  if (tag.error) return html`<${Failed} isPage error=${tag.error} retry=${tag.reload} />`;
  return html`<div class="narrow">
    <div class="page-head">
      <div>
        <h1 tabindex="-1">#${name}</h1>
        <p class="hint facts">
          <span>${tag.data ? `${count(tag.data.posts, "post")} · ${count(tag.data.followers, "follower")}` : "…"}</span>
          <${FeedLink} path=${`/tags/${encoded}/posts.atom`} title=${`Atom feed of #${name}`} />
        </p>
      </div>
      ${tag.data &&
      html`<${FollowButton} path=${`/tags/${encoded}/follow`} what=${`#${name}`} followed=${tag.data.followed} show=${(/** @type {object} */ change) => tag.set({ ...tag.data, ...change })} />`}
    </div>
    <${Tabs}
      label="Order of posts"
      tabs=${SORTS.map((one) => ({
        path: `${tagPath(name)}${one === "new" ? "" : `?sort=${one}`}`,
        text: `${one[0].toUpperCase()}${one.slice(1)}`,
        isCurrent: one === sort,
      }))}
    />
    <${Feed} key=${path} path=${path} topic=${sort === "top" ? "" : `tag:${name}`} empty=${html`<${Empty} title="No posts yet"><p>A post with this tag will appear here.</p><//>`} />
  </div>`;
}
