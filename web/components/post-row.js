/** A post in a list. */

import { post as send, put, remove } from "../api.js";
import { useLive } from "../live.js";
import { useAction, useLoaded } from "../loading.js";
import { href, navigate, tagPath, userPath } from "../router.js";
import { account, changePost, say, sayError, useAccount, usePost } from "../state.js";
import { count, shortNumber } from "../text.js";
import { html, useState } from "../vendor/preact.js";
import { Avatar } from "./avatar.js";
import { Confirm, Menu } from "./dialog.js";
import { Icon } from "./icon.js";
import { Pictures } from "./pictures.js";
import { RemovalDialog } from "./removal-dialog.js";
import { ReportDialog } from "./report-dialog.js";
import { Time } from "./time.js";
import { VoteButton } from "./vote-button.js";

const EXCERPT_CHARACTERS = 400;

/** @param {{item: import("../api.js").Schemas["PostWithVotes"], isInView?: boolean}} props */
export function PostRow({ item, isInView = false }) {
  const { Post: post, votes, voted, comments, deleted, ...rest } = usePost(item);
  useLive([`post:${post.id}`]);
  if (deleted) return null;
  return html`<li class="post-row">
    <article>
      <${Byline} post=${post} />
      <h2><a href=${href(`/posts/${post.id}`)}>${post.title}</a></h2>
      <p class="excerpt">${post.content.slice(0, EXCERPT_CHARACTERS)}</p>
      <${Pictures} media=${post.media} isPreview isInView=${isInView} />
      <${Tags} tags=${post.tags} />
      <${PostActions} item=${{ Post: post, votes, voted, comments, ...rest }} />
    </article>
  </li>`;
}

/**
 * Who wrote it and when.
 * @param {{post: import("../api.js").Schemas["PostOut"]}} props
 */
export function Byline({ post }) {
  return html`<p class="byline">
    <${Avatar} user=${post.owner} />
    <a href=${href(userPath(post.owner))}>${post.owner.username}</a>
    <span aria-hidden="true">·</span>
    <${Time} value=${post.created_at} />
    ${!post.published && html`<span class="badge">${post.removal_reason === null ? "Draft" : "Removed"}</span>`}
    ${post.locked && html`<span class="badge"><${Icon} name="lock" /> Locked</span>`}
  </p>`;
}

/** @param {{tags: string[]}} props */
export function Tags({ tags }) {
  if (tags.length === 0) return null;
  return html`<ul class="tags" aria-label="Tags">
    ${tags.map((name) => html`<li key=${name}><a href=${href(tagPath(name))}>#${name}</a></li>`)}
  </ul>`;
}

/**
 * Vote, comments, bookmark, and the menu. `onDelete` is called after the post was deleted.
 * @param {{item: import("../api.js").Schemas["PostWithVotes"], isOnPage?: boolean, onDelete?: () => void}} props
 */
export function PostActions({ item, isOnPage = false, onDelete = () => {} }) {
  const { Post: post, votes, voted, comments, bookmarked } = item;
  const me = useAccount();
  const [dialog, setDialog] = useState(null);
  /** @param {Partial<import("../api.js").Schemas["PostWithVotes"]>} state */
  const show = (state) => changePost(post.id, state);
  const deletion = useAction(async () => {
    await remove(`/posts/${post.id}`);
    changePost(post.id, { deleted: true });
    setDialog(null);
    say("The post is deleted.");
    onDelete();
  });
  const bookmark = async () => {
    if (!account.value) return navigate("/sign-in");
    show({ bookmarked: !bookmarked });
    try {
      await (bookmarked ? remove : put)(`/posts/${post.id}/bookmark`);
    } catch (error) {
      show({ bookmarked });
      sayError(error);
    }
    return undefined;
  };
  const restore = async () => {
    try {
      await send(`/posts/${post.id}/restore`);
      show({ Post: { ...post, removal_reason: null, published: true } });
      say("The post is restored.");
    } catch (error) {
      sayError(error);
    }
  };
  const mute = useLoaded(isOnPage && me && post.published ? `/posts/${post.id}/mute` : null);
  const toggleMute = async () => {
    try {
      const state = await (mute.data.muted ? remove : put)(`/posts/${post.id}/mute`);
      mute.set(state);
      say(state.muted ? "No more notifications about this post." : "You get notifications about this post again.");
    } catch (error) {
      sayError(error);
    }
  };
  const isOwn = me?.id === post.owner_id;
  const isModerating = me && me.role !== "user";
  const setLock = async () => {
    try {
      const { locked } = await send(`/posts/${post.id}/${post.locked ? "unlock" : "lock"}`);
      show({ Post: { ...post, locked } });
      say(locked ? "No new comments from now on." : "Comments are open again.");
    } catch (error) {
      sayError(error);
    }
  };
  const items = [
    isOwn && { text: "Edit", href: href(`/posts/${post.id}/edit`) },
    post.published && { text: "Copy link", onClick: () => copyLink(post.id) },
    mute.data && { text: mute.data.muted ? "Unmute" : "Mute notifications", onClick: toggleMute },
    me && !isOwn && { text: "Report", onClick: () => setDialog("report") },
    isModerating && { text: post.locked ? "Unlock comments" : "Lock comments", onClick: setLock },
    isModerating && !isOwn && (post.removal_reason === null
      ? { text: "Remove as moderator", onClick: () => setDialog("remove") }
      : { text: "Restore", onClick: restore }),
    (isOwn || isModerating) && { text: "Delete", onClick: () => setDialog("delete") },
  ];
  const comment = html`<${Icon} name="comment" /><span>${shortNumber(comments)}</span>`;
  return html`<div class="actions">
    ${post.published && html`<${VoteButton} path=${`/posts/${post.id}/vote`} votes=${votes} voted=${voted} show=${show} />`}
    ${isOnPage
      ? html`<a class="action" href="#comments" aria-label=${count(comments, "comment")}>${comment}</a>`
      : html`<a class="action" href=${href(`/posts/${post.id}#comments`)} aria-label=${count(comments, "comment")}>${comment}</a>`}
    ${post.published &&
    html`<button
      type="button"
      class="action ${bookmarked ? "is-on" : ""}"
      aria-pressed=${bookmarked ? "true" : "false"}
      aria-label="Bookmark"
      onClick=${bookmark}
    >
      <${Icon} name="bookmark" isFilled=${bookmarked} />
    </button>`}
    <span class="spread"></span>
    <${Menu} label="More about this post" items=${items} />
    ${dialog === "report" &&
    html`<${ReportDialog} target=${{ post_id: post.id }} what="post" close=${() => setDialog(null)} />`}
    ${dialog === "remove" &&
    html`<${RemovalDialog}
      path=${`/posts/${post.id}/remove`}
      what="post"
      done=${(/** @type {string} */ reason) => show({ Post: { ...post, removal_reason: reason, published: false } })}
      close=${() => setDialog(null)}
    />`}
    ${dialog === "delete" &&
    html`<${Confirm}
      title="Delete this post?"
      text="Its comments and votes go with it. This cannot be undone."
      yes="Delete"
      action=${deletion}
      close=${() => setDialog(null)}
    />`}
  </div>`;
}

/** @param {number} id */
async function copyLink(id) {
  try {
    await navigator.clipboard.writeText(location.origin + href(`/posts/${id}`));
    say("The link is copied.");
  } catch {
    say("Your browser does not allow this.", "error");
  }
}
