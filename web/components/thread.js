/** The comments on a post: order, form, and the endless list of threads. */

import { get } from "../api.js";
import { useLive } from "../live.js";
import { useList } from "../loading.js";
import { href } from "../router.js";
import { changePost, isModerator } from "../state.js";
import { count } from "../text.js";
import { html, useEffect, useState } from "../vendor/preact.js";
import { Comment } from "./comment.js";
import { CommentForm } from "./comment-form.js";
import { EndlessList } from "./endless-list.js";
import { NewsBar } from "./news-bar.js";

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
  const news = useNews(post.id, me, list);
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
    <${NewsBar} text=${news.text} show=${news.show} />
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

/**
 * Comments of others that arrive while the page is open. They wait until the reader wants to see them.
 * @typedef {import("../api.js").Schemas} Schemas
 * @param {number} postId
 * @param {Schemas["OwnAccount"] | null} me
 * @param {{items: Schemas["ThreadComment"][], set: (items: any[]) => void, reload: () => void}} list
 */
function useNews(postId, me, list) {
  const [waiting, setWaiting] = useState(/** @type {Schemas["ThreadComment"][]} */ ([]));
  const [hasMissed, setMissed] = useState(false);
  const [first, setFirst] = useState(0);
  useLive([], ({ type, comment }) => {
    if (type === "reset") setMissed(true);
    if (type !== "comment" || comment.post_id !== postId || comment.author.id === me?.id) return;
    const { parent_id: parentId, id } = comment;
    // A reply to a comment that is not loaded yet comes with it.
    if (parentId !== null && !has(list.items, parentId) && !has(waiting, parentId)) return;
    const blank = { votes: 0, voted: false, replies: [], reply_count: 0, deleted: false, removal_reason: null };
    const fresh = { ...blank, ...comment, updated_at: comment.created_at };
    setWaiting((others) => [...others.filter((other) => other.id !== id), fresh]);
  });
  const fresh = waiting.filter(({ id }) => !has(list.items, id));
  const show = () => {
    setWaiting([]);
    if (hasMissed) {
      setMissed(false);
      list.reload();
      return;
    }
    list.set(fresh.reduce(withComment, list.items));
    setFirst(fresh[0].id);
  };
  useEffect(() => {
    const element = document.getElementById(`comment-${first}`);
    element?.scrollIntoView({ block: "center" });
    element?.querySelector("a")?.focus({ preventScroll: true });
  }, [first]);
  return { text: hasMissed ? "New comments" : fresh.length > 0 ? count(fresh.length, "new comment") : "", show };
}

/**
 * The thread with one more comment: first, or the last reply of its parent.
 * @param {Schemas["ThreadComment"][]} comments
 * @param {Schemas["ThreadComment"]} comment
 * @returns {Schemas["ThreadComment"][]}
 */
function withComment(comments, comment) {
  if (comment.parent_id === null) return [comment, ...comments];
  return comments.map((other) => {
    if (other.id === comment.parent_id)
      return { ...other, replies: [...other.replies, comment], reply_count: other.reply_count + 1 };
    return has(other.replies, comment.parent_id ?? 0)
      ? { ...other, replies: withComment(other.replies, comment) }
      : other;
  });
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
