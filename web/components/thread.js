/** The comments on a post: order, form, and the endless list of threads. */

import { get } from "../api.js";
import { useList } from "../loading.js";
import { href } from "../router.js";
import { changePost, isModerator } from "../state.js";
import { count } from "../text.js";
import { html, useEffect, useState } from "../vendor/preact.js";
import { Comment } from "./comment.js";
import { CommentForm } from "./comment-form.js";
import { EndlessList } from "./endless-list.js";

const SORTS = ["top", "new", "old"];
const DEPTH = 3;

/**
 * @param {{post: import("../api.js").Schemas["PostOut"], number: number, me: import("../api.js").Schemas["OwnAccount"] | null,
 *   here: {hash: string}}} props
 */
export function Thread({ post, number, me, here }) {
  const [sort, setSort] = useState("top");
  const list = useList(`/posts/${post.id}/comments?sort=${sort}&limit=20&depth=${DEPTH}`);
  const targetId = Number(/^comment-(\d+)$/.exec(here.hash)?.[1] ?? 0);
  const target = useTarget(targetId, list.items, !list.isLoading);
  const onCount = (change) => changePost(post.id, { comments: number + change });
  const addComment = (comment) => {
    list.set([{ ...comment, replies: [] }, ...list.items]);
    onCount(1);
  };
  const replace = (changed) => list.set(list.items.map((item) => (item.id === changed.id ? changed : item)));
  const drop = (id) => list.set(list.items.filter((item) => item.id !== id));
  const shared = { post, me, sort, targetId, onCount, isModerating: isModerator(me), canReply: post.published && !post.locked };
  useEffect(() => {
    if (!list.isLoading && here.hash) document.getElementById(here.hash)?.scrollIntoView({ block: "center" });
  }, [list.isLoading, here.hash, target?.id]);
  return html`<section class="comments" id="comments" aria-label="Comments">
    <div class="comments-head">
      <h2>${count(number, "comment")}</h2>
      ${number > 1 &&
      html`<div class="feeds" role="group" aria-label="Order of comments">
        ${SORTS.map(
          (one) => html`<button key=${one} type="button" aria-pressed=${one === sort ? "true" : "false"} onClick=${() => setSort(one)}>${one[0].toUpperCase()}${one.slice(1)}</button>`,
        )}
      </div>`}
    </div>
    ${post.locked
      ? html`<p class="notice">A moderator has locked this post: it takes no new comments.</p>`
      : !post.published
        ? html`<p class="hint">Only published posts take comments.</p>`
        : me
          ? html`<${CommentForm} name=${`comment-on-${post.id}`} path=${`/posts/${post.id}/comments`} label="Write a comment" submit="Comment" done=${addComment} />`
          : html`<p class="notice"><a href=${href(`/sign-in?next=/posts/${post.id}`)}>Sign in</a> to comment.</p>`}
    ${target &&
    html`<p class="section-title hint">The comment that you followed a link to</p>
      <ul><${Comment} comment=${target} ...${shared} replace=${() => list.reload()} drop=${() => list.reload()} /></ul>`}
    ${post.published &&
    html`<${EndlessList}
      key=${sort}
      list=${list}
      label="Comments"
      class="thread"
      empty=${html`<p class="hint comments-empty">No comments yet.</p>`}
      render=${(comment) => html`<${Comment} key=${comment.id} comment=${comment} ...${shared} replace=${replace} drop=${drop} />`}
    />`}
  </section>`;
}

/** The comment of the address, if the first page of the thread does not have it. */
function useTarget(id, items, isLoaded) {
  const [target, setTarget] = useState(null);
  const isShown = has(items, id);
  useEffect(() => {
    if (!id || !isLoaded || isShown || target?.id === id) return;
    get(`/comments/${id}`).then(
      (comment) => setTarget({ ...comment, replies: [] }),
      () => {},
    );
  }, [id, isLoaded, isShown]);
  return target !== null && target.id === id && !isShown ? target : null;
}

function has(comments, id) {
  return comments.some((comment) => comment.id === id || has(comment.replies, id));
}
