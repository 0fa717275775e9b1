/** The posts that the reader has bookmarked, or voted for. */

import { MemberPage } from "../components/member-page.js";
import { Empty } from "../components/states.js";
import { Tabs } from "../components/tabs.js";
import { useTitle } from "../loading.js";
import { html } from "../vendor/preact.js";
import { Feed } from "./front.js";

export default function Bookmarks({ here }) {
  const isVotes = here.query.get("show") === "votes";
  const path = isVotes ? "/users/me/votes?limit=20" : "/users/me/bookmarks?limit=20";
  useTitle(isVotes ? "Voted for" : "Bookmarks");
  return html`<${MemberPage} here=${here}>
    <div class="narrow">
      <div class="page-head"><h1 tabindex="-1">${isVotes ? "Voted for" : "Bookmarks"}</h1></div>
      <${Tabs}
        label="Kept posts"
        tabs=${[
          { path: "/bookmarks", text: "Bookmarks", isCurrent: !isVotes },
          { path: "/bookmarks?show=votes", text: "Voted for", isCurrent: isVotes },
        ]}
      />
      <${Feed}
        key=${path}
        path=${path}
        empty=${html`<${Empty} title=${isVotes ? "You have not voted yet" : "No bookmarks yet"}>
          <p>${isVotes ? "Posts that you vote for appear here." : "Posts that you bookmark appear here. Only you see them."}</p>
        <//>`}
      />
    </div>
  <//>`;
}
