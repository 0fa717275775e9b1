/** A user: who it is, posts, comments, followers. */

import { post, put, remove } from "../api.js";
import { Avatar } from "../components/avatar.js";
import { BanDialog } from "../components/ban-dialog.js";
import { Confirm, Menu } from "../components/dialog.js";
import { EndlessList } from "../components/endless-list.js";
import { FeedLink } from "../components/feed-link.js";
import { PictureDialog } from "../components/picture-dialog.js";
import { ReportDialog } from "../components/report-dialog.js";
import { Empty, Failed, Loading } from "../components/states.js";
import { Tabs } from "../components/tabs.js";
import { FollowButton } from "../components/tag-row.js";
import { Time, monthOf } from "../components/time.js";
import { Name } from "../components/name.js";
import { useAction, useList, useLoaded, useTitle } from "../loading.js";
import { forgetPages, href, userPath } from "../router.js";
import { isModerator, say, sayError, useAccount } from "../state.js";
import { linked, paragraphs, shortNumber } from "../text.js";
import { html, useState } from "../vendor/preact.js";
import { Feed } from "./front.js";

/** @param {{username: string, tab?: string}} props */
export default function Profile({ username, tab = "posts" }) {
  // "user" and a number is the name of accounts that have not chosen one.
  const number = /^user(\d+)$/.exec(username)?.[1];
  const loaded = useLoaded(number ? `/users/${number}` : `/users/by-username/${encodeURIComponent(username)}`);
  if (loaded.error) return html`<${Failed} isPage error=${loaded.error} retry=${loaded.reload} />`;
  if (!loaded.data) return html`<div class="narrow"><${Loading} rows=${3} /></div>`;
  return html`<${Shown} user=${loaded.data} set=${loaded.set} tab=${tab} />`;
}

/** @param {{user: import("../api.js").Schemas["UserProfile"], set: (user: any) => void, tab: string}} props */
function Shown({ user, set, tab }) {
  const me = useAccount();
  const [dialog, setDialog] = useState(null);
  const isOwn = me?.id === user.id;
  const show = (/** @type {object} */ change) => set({ ...user, ...change });
  useTitle(user.display_name || user.username);
  const toggleBlock = async () => {
    try {
      const { blocked } = await (user.blocked ? remove : put)(`/users/${user.id}/block`);
      forgetPages();
      show({ blocked, followed: false });
      say(blocked ? `You no longer see what ${user.username} writes.` : `${user.username} is no longer blocked.`);
    } catch (error) {
      sayError(error);
    }
  };
  const unban = async () => {
    try {
      await post(`/users/${user.id}/unban`);
      say("The ban has ended.");
    } catch (error) {
      sayError(error);
    }
  };
  const deletion = useAction(async () => {
    show(await remove(`/users/${user.id}/avatar`));
    setDialog(null);
  });
  const items = me && !isOwn && [
    { text: user.blocked ? "Unblock" : "Block", onClick: toggleBlock },
    { text: "Report", onClick: () => setDialog("report") },
    isModerator(me) && { text: "Ban", onClick: () => setDialog("ban") },
    isModerator(me) && { text: "End a ban", onClick: unban },
    isModerator(me) && user.avatar && { text: "Delete picture", onClick: () => setDialog("delete-picture") },
  ];
  const base = userPath(user);
  const view = (/** @type {string} */ name, /** @type {string} */ text) => ({ path: name === "posts" ? base : `${base}/${name}`, text, isCurrent: tab === name });
  return html`<div class="narrow">
    <header class="profile-head">
      ${user.avatar
        ? html`<button type="button" class="avatar-button" aria-label="Show the picture" onClick=${() => setDialog("picture")}><${Avatar} user=${user} size="large" /></button>`
        : html`<${Avatar} user=${user} size="large" />`}
      <div class="page-head">
        <div>
          <h1 tabindex="-1">${user.display_name || user.username}</h1>
          <p class="hint">${user.display_name && `@${user.username} · `}Since ${monthOf(user.created_at)}</p>
        </div>
        <div class="form-buttons">
          ${isOwn
            ? html`<a class="button button-small" href=${href("/settings")}>Edit profile</a>`
            : !user.blocked && html`<${FollowButton} path=${`/users/${user.id}/follow`} what=${user.username} followed=${user.followed} show=${show} />`}
          ${items && html`<${Menu} label=${`More about ${user.username}`} items=${items} />`}
        </div>
      </div>
      ${user.bio && html`<p class="bio">${linked(user.bio)}</p>`}
      <p class="figures">
        <span><b>${shortNumber(user.posts)}</b> ${user.posts === 1 ? "post" : "posts"}</span>
        <a href=${href(`${base}/followers`)}><b>${shortNumber(user.followers)}</b> ${user.followers === 1 ? "follower" : "followers"}</a>
        <a href=${href(`${base}/following`)}><b>${shortNumber(user.following)}</b> following</a>
        <${FeedLink} path=${`/users/${user.id}/posts.atom`} title=${`Atom feed of ${user.username}`} />
      </p>
    </header>
    ${user.blocked && html`<p class="notice">You have blocked ${user.username}. <button type="button" class="link-button" onClick=${toggleBlock}>Unblock</button></p>`}
    <${Tabs}
      label="Of this user"
      tabs=${[
        view("posts", "Posts"),
        isOwn && view("drafts", "Drafts"),
        view("comments", "Comments"),
        view("followers", "Followers"),
        view("following", "Following"),
      ]}
    />
    ${!user.blocked && html`<${Tab} key=${tab} user=${user} tab=${tab} isOwn=${isOwn} />`}
    ${dialog === "report" && html`<${ReportDialog} target=${{ user_id: user.id }} what="user" close=${() => setDialog(null)} />`}
    ${dialog === "ban" && html`<${BanDialog} user=${user} close=${() => setDialog(null)} />`}
    ${dialog === "delete-picture" && html`<${Confirm} title="Delete this picture?" text="The user is notified. This cannot be undone." yes="Delete" action=${deletion} close=${() => setDialog(null)} />`}
    ${dialog === "picture" && html`<${PictureDialog} picture=${user.avatar} title=${user.display_name || user.username} close=${() => setDialog(null)} />`}
  </div>`;
}

/** @param {{user: import("../api.js").Schemas["UserProfile"], tab: string, isOwn: boolean}} props */
function Tab({ user, tab, isOwn }) {
  if (tab === "comments") return html`<${Comments} user=${user} />`;
  if (tab === "followers" || tab === "following") return html`<${People} user=${user} kind=${tab} />`;
  if (tab === "drafts" && isOwn) {
    return html`<${Feed} path="/posts?published=false&limit=20" label="Drafts" empty=${html`<${Empty} title="No drafts"><p>Posts that you save without publishing appear here. Only you see them.</p><//>`} />`;
  }
  return html`<${Feed} path=${`/posts?owner_id=${user.id}&sort=new&limit=20`} empty=${html`<${Empty} title="No posts yet" />`} />`;
}

/** @param {{user: import("../api.js").Schemas["UserProfile"]}} props */
function Comments({ user }) {
  const list = useList(`/users/${user.id}/comments?limit=20`);
  /** @param {import("../api.js").Schemas["CommentOut"]} comment */
  const row = (comment) => html`<li key=${comment.id} class="post-row">
    <p class="byline"><a href=${href(`/posts/${comment.post_id}#comment-${comment.id}`)}>Comment</a> <span aria-hidden="true">·</span> <${Time} value=${comment.created_at} /></p>
    <div class="prose">${paragraphs(comment.content)}</div>
  </li>`;
  return html`<${EndlessList} list=${list} label="Comments" empty=${html`<${Empty} title="No comments yet" />`} render=${row} />`;
}

/** @param {{user: import("../api.js").Schemas["UserProfile"], kind: "followers" | "following"}} props */
function People({ user, kind }) {
  const list = useList(`/users/${user.id}/${kind}?limit=50`);
  const row = (/** @type {import("../api.js").Schemas["UserSummary"]} */ person) => html`<li key=${person.id} class="row">
    <a class="row-link" href=${href(userPath(person))}>
      <${Avatar} user=${person} size="medium" /><${Name} user=${person} />
    </a>
  </li>`;
  const empty = html`<${Empty} title=${kind === "followers" ? "No followers yet" : "Follows no users yet"} />`;
  return html`<${EndlessList} list=${list} label=${kind === "followers" ? "Followers" : "Following"} empty=${empty} render=${row} />`;
}

