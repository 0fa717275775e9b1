/** All tags, the popular ones first, and those that the reader follows. */

import { EndlessList } from "../components/endless-list.js";
import { Empty } from "../components/states.js";
import { TagRow } from "../components/tag-row.js";
import { useList, useSettled, useTitle } from "../loading.js";
import { useAccount } from "../state.js";
import { html, useState } from "../vendor/preact.js";

export default function Tags() {
  const me = useAccount();
  const [prefix, setPrefix] = useState("");
  const [isFollowed, setFollowed] = useState(false);
  const settled = useSettled(prefix.trim().replace(/^#/, ""));
  const list = useList(
    isFollowed
      ? "/tags?followed=true&limit=50"
      : `/tags?limit=50${settled ? `&prefix=${encodeURIComponent(settled)}` : ""}`,
  );
  useTitle("Tags");
  return html`<div class="narrow">
    <div class="page-head"><h1 tabindex="-1">Tags</h1></div>
    ${me &&
    html`<div class="feeds">
      <button type="button" aria-pressed=${isFollowed ? "false" : "true"} onClick=${() => setFollowed(false)}>All</button>
      <button type="button" aria-pressed=${isFollowed ? "true" : "false"} onClick=${() => setFollowed(true)}>Followed</button>
    </div>`}
    ${!isFollowed &&
    html`<input class="input" type="search" aria-label="Tags that begin with" placeholder="Find a tag" maxlength="30" value=${prefix} onInput=${(event) => setPrefix(event.currentTarget.value)} />`}
    <${EndlessList}
      list=${list}
      label="Tags"
      empty=${html`<${Empty} title=${isFollowed ? "You follow no tags" : "No such tag"} />`}
      render=${(tag) => html`<${TagRow} key=${tag.name} tag=${tag} />`}
    />
  </div>`;
}
