/** The front page: posts by heat, time or votes, or of what the reader follows. */

import { publicReads } from "../api.js";
import { EndlessList } from "../components/endless-list.js";
import { PostRow } from "../components/post-row.js";
import { Sidebar } from "../components/sidebar.js";
import { Empty } from "../components/states.js";
import { Tabs } from "../components/tabs.js";
import { Welcome } from "../components/welcome.js";
import { useList, useTitle } from "../loading.js";
import { href } from "../router.js";
import { useAccount } from "../state.js";
import { html } from "../vendor/preact.js";

const SORTS = [
  ["hot", "Hot"],
  ["new", "New"],
  ["top", "Top"],
];

export default function Front({ here, feed }) {
  const me = useAccount();
  const sort = SORTS.find(([name]) => name === here.query.get("sort"))?.[0] ?? "hot";
  const isHome = feed === "home";
  const path = isHome ? "/home?limit=20" : `/posts?sort=${sort}&limit=20`;
  useTitle(isHome ? "Home" : "");
  if (!me && !publicReads) return html`<${Welcome} />`;
  return html`<div class="columns">
    <div class="column">
      <h1 class="visually-hidden" tabindex="-1">${isHome ? "Home" : "Posts"}</h1>
      <${Tabs}
        label="Order of posts"
        tabs=${[
          me && { path: "/home", text: "Home", isCurrent: isHome },
          ...SORTS.map(([name, text]) => ({
            path: name === "hot" ? "/" : `/?sort=${name}`,
            text,
            isCurrent: !isHome && name === sort,
          })),
        ]}
      />
      <${Feed} key=${path} path=${path} empty=${isHome ? html`<${EmptyHome} />` : html`<${EmptySite} />`} />
    </div>
    <${Sidebar} />
  </div>`;
}

/** An endless list of posts. */
export function Feed({ path, empty, label = "Posts" }) {
  const list = useList(path);
  return html`<${EndlessList}
    list=${list}
    label=${label}
    empty=${empty}
    render=${(item) => html`<${PostRow} key=${item.Post.id} item=${item} />`}
  />`;
}

function EmptyHome() {
  return html`<${Empty} title="Your home page is empty">
    <p>Posts of the people and tags that you follow appear here. <a href=${href("/")}>See what is hot</a>, or <a href=${href("/tags")}>choose some tags</a>.</p>
  <//>`;
}

function EmptySite() {
  return html`<${Empty} title="Nothing here yet">
    <p>Be the first: <a href=${href("/write")}>write a post</a>.</p>
  <//>`;
}
