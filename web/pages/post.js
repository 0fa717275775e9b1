/** A post with its comments. */

import { Thread } from "../components/thread.js";
import { Pictures } from "../components/pictures.js";
import { Byline, PostActions, Tags } from "../components/post-row.js";
import { Failed, Loading } from "../components/states.js";
import { useLive } from "../live.js";
import { useLoaded, useTitle } from "../loading.js";
import { navigate } from "../router.js";
import { changePost, useAccount, usePost } from "../state.js";
import { paragraphs } from "../text.js";
import { html } from "../vendor/preact.js";

export default function Post({ id, here }) {
  const loaded = useLoaded(`/posts/${encodeURIComponent(id)}`);
  if (loaded.error) return html`<${Failed} isPage error=${loaded.error} retry=${loaded.reload} />`;
  if (!loaded.data) return html`<div class="narrow"><${Loading} rows=${2} label="Loading the post" /></div>`;
  return html`<${Shown} item=${loaded.data} here=${here} />`;
}

/** @param {{item: import("../api.js").Schemas["PostWithVotes"], here: {hash: string}}} props */
function Shown({ item: loaded, here }) {
  const item = usePost(loaded);
  const me = useAccount();
  const { Post: post } = item;
  useTitle(post.title);
  useLive([`post:${post.id}`], ({ type, id, post: values }) => {
    if (type === "post" && id === post.id && values && values.locked !== post.locked)
      changePost(id, { Post: { ...post, locked: values.locked } });
  });
  return html`<div class="narrow">
    <article class="post">
      <${Byline} post=${post} />
      <h1 tabindex="-1">${post.title}</h1>
      ${post.removal_reason !== null &&
      html`<p class="notice">A moderator has removed this post. The reason: ${post.removal_reason}</p>`}
      <div class="prose">${paragraphs(post.content)}</div>
      <${Pictures} media=${post.media} />
      <${Tags} tags=${post.tags} />
      <${PostActions} item=${item} isOnPage onDelete=${() => navigate("/")} />
    </article>
    <${Thread} key=${post.id} post=${post} number=${item.comments} me=${me} here=${here} />
  </div>`;
}
