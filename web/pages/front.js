/** The front page: posts by heat, time or votes, or of what the reader follows. */

import { publicReads, registration } from "../api.js";
import { EndlessList } from "../components/endless-list.js";
import { NewsBar } from "../components/news-bar.js";
import { PostRow } from "../components/post-row.js";
import { Sidebar } from "../components/sidebar.js";
import { Empty } from "../components/states.js";
import { Tabs } from "../components/tabs.js";
import { Welcome } from "../components/welcome.js";
import { useLive } from "../live.js";
import { useList, useTitle } from "../loading.js";
import { href } from "../router.js";
import { useAccount } from "../state.js";
import { count } from "../text.js";
import { html, useState } from "../vendor/preact.js";

const SORTS = [
  ["hot", "Hot"],
  ["new", "New"],
  ["top", "Top"],
];

// Before scrolling. Their pictures load first.
const POSTS_IN_VIEW = 2;

/** @param {{here: import("../router.js").Place, feed?: string}} props */
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
      ${!me &&
      html`<p class="notice">Read along, or ${registration !== "closed" && html`<a href=${href("/sign-up")}>create an account</a>${" or "}`}<a href=${href("/sign-in")}>sign in</a> to vote, comment and write.</p>`}
      <${Feed} key=${path} path=${path} topic=${isHome || sort === "top" ? "" : "new"} empty=${isHome ? html`<${EmptyHome} />` : html`<${EmptySite} />`} />
    </div>
    <${Sidebar} />
  </div>`;
}

/**
 * An endless list of posts. A bar says when there are new ones of the topic.
 * @param {{path: string, empty: unknown, label?: string, topic?: string}} props
 */
export function Feed({ path, empty, label = "Posts", topic = "" }) {
  const me = useAccount();
  const list = useList(path);
  const [fresh, setFresh] = useState(/** @type {number[]} */ ([]));
  const [hasMissed, setMissed] = useState(false);
  useLive(topic ? [topic] : [], ({ type, post }) => {
    if (!topic) return;
    if (type === "reset") setMissed(true);
    // Published again, written here, or read meanwhile: nothing new.
    if (type !== "published" || post.owner.id === me?.id || (topic !== "new" && !post.tags.includes(topic.slice(4)))) return;
    if (!list.items.some((/** @type {import("../api.js").Schemas["PostWithVotes"]} */ item) => item.Post.id === post.id)) setFresh((/** @type {number[]} */ ids) => [...ids.filter((id) => id !== post.id), post.id]);
  });
  const show = () => {
    setFresh([]);
    setMissed(false);
    list.reload();
    window.scrollTo({ top: 0 });
  };
  return html`<${NewsBar} text=${fresh.length > 0 ? count(fresh.length, "new post") : hasMissed ? "New posts" : ""} show=${show} />
    <${EndlessList}
      list=${list}
      label=${label}
      empty=${empty}
      render=${(/** @type {import("../api.js").Schemas["PostWithVotes"]} */ item, /** @type {number} */ index) => html`<${PostRow} key=${item.Post.id} item=${item} isInView=${index < POSTS_IN_VIEW} />`}
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
