/** Notifications, newest first. What the page shows counts as read. */

import { post } from "../api.js";
import { Avatar } from "../components/avatar.js";
import { EndlessList } from "../components/endless-list.js";
import { Icon } from "../components/icon.js";
import { NewsBar } from "../components/news-bar.js";
import { MemberPage } from "../components/member-page.js";
import { Empty } from "../components/states.js";
import { Time } from "../components/time.js";
import { useLive } from "../live.js";
import { useList, useTitle } from "../loading.js";
import { href, userPath } from "../router.js";
import { unread, useAccount } from "../state.js";
import { html, useEffect, useState } from "../vendor/preact.js";

/** @type {Record<import("../api.js").Schemas["NotificationKind"], string>} */
const WORDS = {
  reply: "replied to your comment",
  comment: "commented on your post",
  mention: "mentioned you",
  follow: "follows you now",
  moderation: "A moderator has acted on your post, comment or account",
};

const isUnread = (/** @type {import("../api.js").Schemas["NotificationOut"]} */ { read_at: readAt }) => readAt === null;

/** @param {{here: import("../router.js").Place}} props */
export default function Notifications({ here }) {
  return html`<${MemberPage} here=${here}><${List} /><//>`;
}

function List() {
  const me = useAccount();
  const list = useList("/notifications?limit=30");
  const newest = list.items[0];
  const [hasNew, setNew] = useState(false);
  useLive([], ({ type, notification }) => {
    if (type === "notification" && list.items.some((/** @type {import("../api.js").Schemas["NotificationOut"]} */ { id }) => id === notification.id)) return;
    if (type === "notification" || type === "reset") setNew(true);
  });
  const show = () => {
    setNew(false);
    list.reload();
    window.scrollTo({ top: 0 });
  };
  useTitle("Notifications");
  useEffect(() => {
    if (!list.items.some(isUnread)) return;
    // Only what is shown: one that arrives meanwhile stays unread.
    post("/notifications/read", { up_to: newest.id }).then(
      (counts) => unread.set(counts.unread),
      () => {},
    );
  }, [newest?.id]);
  return html`<div class="narrow">
    <div class="page-head"><h1 tabindex="-1">Notifications</h1></div>
    <${NewsBar} text=${hasNew ? "New notifications" : ""} show=${show} />
    <${EndlessList}
      list=${list}
      label="Notifications"
      empty=${html`<${Empty} title="Nothing new"><p>Replies, mentions and new followers appear here.</p><//>`}
      render=${(/** @type {import("../api.js").Schemas["NotificationOut"]} */ item) => html`<${Row} key=${item.id} item=${item} me=${me} />`}
    />
  </div>`;
}

/** @param {{item: import("../api.js").Schemas["NotificationOut"], me: import("../api.js").Schemas["OwnAccount"]}} props */
function Row({ item, me }) {
  const { kind, actor, post_id: postId, comment_id: commentId } = item;
  const path = postId
    ? `/posts/${postId}${commentId ? `#comment-${commentId}` : ""}`
    : kind === "follow" && actor
      ? userPath(actor)
      : userPath(me);
  return html`<li class="row ${isUnread(item) ? "is-unread" : ""}">
    <a class="row-link" href=${href(path)}>
      ${actor ? html`<${Avatar} user=${actor} size="medium" />` : html`<${Icon} name="shield" />`}
      <span>
        ${actor && html`<b>${actor.display_name || actor.username}</b> `}${WORDS[kind] ?? kind}
        ${isUnread(item) && html`<span class="visually-hidden"> (unread)</span>`}
        <br /><span class="hint"><${Time} value=${item.created_at} /></span>
      </span>
    </a>
  </li>`;
}
