/** A comment with its replies. */

import { all, post as send, remove, request } from "../api.js";
import { useAction } from "../loading.js";
import { href, userPath } from "../router.js";
import { say, sayError } from "../state.js";
import { count, paragraphs } from "../text.js";
import { html, useState } from "../vendor/preact.js";
import { Avatar } from "./avatar.js";
import { CommentForm } from "./comment-form.js";
import { Confirm, Menu } from "./dialog.js";
import { RemovalDialog } from "./removal-dialog.js";
import { ReportDialog } from "./report-dialog.js";
import { Time } from "./time.js";
import { VoteButton } from "./vote-button.js";

const MAX_DEPTH = 32;

/**
 * `replace(comment)` and `drop(id)` change the list that the comment stands in.
 * @typedef {import("../api.js").Schemas} Schemas
 * @typedef {{post: Schemas["PostOut"], me: Schemas["OwnAccount"] | null, sort: string, targetId: number,
 *   onCount: (change: number) => void, isModerating: boolean, canReply: boolean}} Shared
 * @param {{comment: Schemas["ThreadComment"], replace: (changed: Schemas["ThreadComment"]) => void,
 *   drop: (id: number) => void} & Shared} props
 */
export function Comment({ comment, replace, drop, ...shared }) {
  const { post, me, sort, targetId, onCount, isModerating, canReply } = shared;
  const { id, author, replies, deleted } = comment;
  const [isFolded, setFolded] = useState(false);
  const [mode, setMode] = useState(null); // reply, edit, report, remove or delete
  const [version, setVersion] = useState(null);
  const isOwn = me !== null && me.id === author?.id;
  const isRemoved = comment.removal_reason !== null;
  /** @param {Partial<Schemas["ThreadComment"]>} values */
  const change = (values) => replace({ ...comment, ...values });
  const missing = comment.reply_count - replies.length;

  const edit = async () => {
    try {
      // The version that the author sees in the form.
      const response = await request(`/comments/${id}`);
      const { content } = await response.json();
      change({ content });
      setVersion(response.headers.get("ETag") ?? "*");
      setMode("edit");
    } catch (error) {
      sayError(error);
    }
  };
  const deletion = useAction(async () => {
    await remove(`/comments/${id}`);
    setMode(null);
    onCount(-1);
    if (comment.reply_count > 0) change({ deleted: true, author: null, content: "" });
    else drop(id);
  });
  const more = useAction(async () => {
    const found = await all(`/posts/${post.id}/comments?parent_id=${id}&sort=${sort}&limit=50&depth=2`);
    change({ replies: found, reply_count: found.length });
  });
  const restore = async () => {
    try {
      await send(`/comments/${id}/restore`);
      change({ removal_reason: null });
      say("The comment is restored.");
    } catch (error) {
      sayError(error);
    }
  };
  const copyLink = async () => {
    try {
      await navigator.clipboard.writeText(`${location.origin}${href(`/posts/${post.id}`)}#comment-${id}`);
      say("The link is copied.");
    } catch {
      say("Your browser does not allow this.", "error");
    }
  };
  const items = [
    isOwn && { text: "Edit", onClick: edit },
    { text: "Copy link", onClick: copyLink },
    me && !isOwn && { text: "Report", onClick: () => setMode("report") },
    isModerating && !isOwn && (isRemoved ? { text: "Restore", onClick: restore } : { text: "Remove as moderator", onClick: () => setMode("remove") }),
    (isOwn || isModerating) && { text: "Delete", onClick: () => setMode("delete") },
  ];
  const addReply = (/** @type {Schemas["CommentOut"]} */ reply) => {
    setMode(null);
    change({ replies: [...replies, { ...reply, replies: [] }], reply_count: comment.reply_count + 1 });
    onCount(1);
  };
  const list = {
    replace: (/** @type {Schemas["ThreadComment"]} */ changed) => change({ replies: replies.map((reply) => (reply.id === changed.id ? changed : reply)) }),
    drop: (/** @type {number} */ gone) => change({ replies: replies.filter((reply) => reply.id !== gone), reply_count: comment.reply_count - 1 }),
  };
  const name = author?.username ?? "deleted";

  return html`<li class="comment ${id === targetId ? "is-target" : ""}" id=${`comment-${id}`}>
    <div class="comment-own">
      <p class="byline">
        ${author && html`<${Avatar} user=${author} /><a href=${href(userPath(author))}>${author.username}</a>`}
        ${deleted && html`<span class="is-deleted">Deleted comment</span>`}
        ${author?.id === post.owner_id && html`<span class="badge">Author</span>`}
        ${isRemoved && html`<span class="badge">Removed</span>`}
        <span aria-hidden="true">·</span>
        <${Time} value=${comment.created_at} />
        ${comment.updated_at !== comment.created_at && !deleted && html`<span>· edited</span>`}
        <button type="button" class="fold" aria-expanded=${isFolded ? "false" : "true"} aria-label=${`Comment of ${name} and replies`} onClick=${() => setFolded(!isFolded)}>
          ${isFolded ? "+" : "−"}
        </button>
      </p>
      ${!isFolded &&
      !deleted &&
      html`${isRemoved && html`<p class="notice">Removed by a moderator. The reason: ${comment.removal_reason}</p>`}
        ${mode === "edit"
          ? html`<${CommentForm} name=${`edit-${id}`} path=${`/comments/${id}`} label="Your comment" submit="Save" initial=${comment.content} version=${version} cancel=${() => setMode(null)} done=${(/** @type {Schemas["CommentOut"]} */ saved) => { setMode(null); change({ content: saved.content, updated_at: saved.updated_at }); }} />`
          : html`<div class="prose">${paragraphs(comment.content)}</div>`}
        <div class="actions">
          <${VoteButton} path=${`/comments/${id}/vote`} votes=${comment.votes} voted=${comment.voted} show=${change} isOff=${isRemoved} />
          ${me && canReply && !isRemoved && comment.depth < MAX_DEPTH &&
          html`<button type="button" class="action" onClick=${() => setMode(mode === "reply" ? null : "reply")}>Reply</button>`}
          <${Menu} label="More about this comment" items=${items} />
        </div>
        ${mode === "reply" &&
        html`<${CommentForm} name=${`reply-${id}`} path=${`/posts/${post.id}/comments`} parentId=${id} label=${`Reply to ${name}`} submit="Reply" cancel=${() => setMode(null)} done=${addReply} />`}`}
    </div>
    ${!isFolded &&
    html`${replies.length > 0 &&
      html`<ul class="replies">
        ${replies.map((reply) => html`<${Comment} key=${reply.id} comment=${reply} ...${shared} ...${list} />`)}
      </ul>`}
      ${missing > 0 &&
      html`<p class="more-replies">
        <button type="button" class="link-button" onClick=${() => more.run()} aria-disabled=${more.isBusy}>
          ${more.isBusy ? "Loading…" : `Show ${count(missing, "more reply", "more replies")}`}
        </button>
        ${more.error && html` <span class="field-error" role="alert">${more.error.message}</span>`}
      </p>`}`}
    ${mode === "report" && html`<${ReportDialog} target=${{ comment_id: id }} what="comment" close=${() => setMode(null)} />`}
    ${mode === "remove" &&
    html`<${RemovalDialog} path=${`/comments/${id}/remove`} what="comment" done=${(/** @type {string} */ reason) => change({ removal_reason: reason })} close=${() => setMode(null)} />`}
    ${mode === "delete" &&
    html`<${Confirm} title="Delete this comment?" text="This cannot be undone." yes="Delete" action=${deletion} close=${() => setMode(null)} />`}
  </li>`;
}
