/** Write a post or change one: draft or published, tags, pictures. Unsent text is kept on this device. */

import { ApiError, newKey, patch, post as send, request } from "../api.js";
import { Confirm } from "../components/dialog.js";
import { Field, Form } from "../components/form.js";
import { MemberPage } from "../components/member-page.js";
import { PictureField } from "../components/picture-field.js";
import { Empty, Failed, Loading } from "../components/states.js";
import { TagField } from "../components/tag-field.js";
import { useAction, useTitle } from "../loading.js";
import { forgetPages, guardLeaving, href, navigate } from "../router.js";
import { changePost, say, useAccount } from "../state.js";
import { html, useEffect, useRef, useState } from "../vendor/preact.js";

/** @typedef {import("../api.js").Schemas["MediaOut"]} Picture */
/** @typedef {{title: string, content: string, tags: string[], media: Picture[]}} Values */

/** @type {Values & {published: boolean}} */
const EMPTY = { title: "", content: "", tags: [], media: [], published: true };

/** @param {{here: import("../router.js").Place, id?: string}} props */
export default function Write({ id, here }) {
  return html`<${MemberPage} here=${here}>${id ? html`<${Change} id=${id} />` : html`<${Editor} />`}<//>`;
}

/**
 * The post of the address, with the version that the author sees.
 * @param {{id: string}} props
 */
function Change({ id }) {
  const me = useAccount();
  const [state, setState] = useState({ opened: null, error: null });
  const open = async () => {
    try {
      setState({ opened: await openPost(id), error: null });
    } catch (error) {
      setState({ opened: null, error });
    }
  };
  useEffect(() => void open(), [id]);
  if (state.error) return html`<${Failed} isPage error=${state.error} retry=${open} />`;
  if (!state.opened) return html`<${Loading} rows=${2} />`;
  if (state.opened.post.owner_id !== me?.id) {
    return html`<${Empty} isPage title="This post is not yours"><p>Only its author can edit it. <a href=${href(`/posts/${id}`)}>Read it</a>.</p><//>`;
  }
  return html`<${Editor} opened=${state.opened} />`;
}

/** @param {string} id */
async function openPost(id) {
  const response = await request(`/posts/${encodeURIComponent(id)}`);
  return { post: (await response.json()).Post, version: response.headers.get("ETag") ?? "*" };
}

/** @param {{opened?: {post: any, version: string}}} props without it, the post is new */
function Editor({ opened }) {
  const keptName = `text:post-${opened?.post.id ?? "new"}`;
  const original = opened?.post ?? EMPTY;
  const [text, setText] = useState(() => ({ ...valuesOf(original), ...keptText(keptName) }));
  const [version, setVersion] = useState(opened?.version);
  const [theirs, setTheirs] = useState(null);
  const [isDraft, setDraft] = useState(false);
  const [isAsking, setAsking] = useState(false);
  const [isRestored] = useState(() => keptText(keptName) !== null);
  const key = useRef(newKey());
  const isClean = useRef(false);
  const isChanged = JSON.stringify(text) !== JSON.stringify(valuesOf(original));
  useTitle(opened ? "Edit post" : "Write a post");

  const change = (/** @type {Partial<Values>} */ values) => {
    key.current = newKey();
    isClean.current = false;
    setText((/** @type {Values} */ before) => ({ ...before, ...values }));
  };
  useEffect(() => {
    if (isClean.current) return undefined;
    if (isChanged) localStorage.setItem(keptName, JSON.stringify(text));
    else localStorage.removeItem(keptName);
    return guardLeaving(() => isChanged && !isClean.current && text.media.length > 0);
  }, [text]);
  const forget = () => {
    isClean.current = true;
    localStorage.removeItem(keptName);
  };

  const save = async (/** @type {boolean} */ published) => {
    const { title, content, tags, media } = text;
    const body = { title, content, tags, media_ids: media.map((/** @type {Picture} */ item) => item.id), published };
    try {
      for (const item of media) {
        const isNew = original.media.every((/** @type {Picture} */ { id }) => id !== item.id);
        if (isNew && item.alt) await patch(`/media/${item.id}`, { alt: item.alt });
      }
      const saved = opened
        ? await patch(`/posts/${opened.post.id}`, body, { headers: { "If-Match": version } })
        : await send("/posts", body, { key: key.current });
      // A change of a picture changes its post, so it comes after the check of the version.
      for (const item of media) {
        const before = original.media.find((/** @type {Picture} */ { id }) => id === item.id);
        if (before && (before.alt ?? "") !== (item.alt ?? "")) await patch(`/media/${item.id}`, { alt: item.alt ?? "" });
      }
      forget();
      changePost(saved.id, { Post: { ...saved, media } });
      forgetPages();
      say(published ? "Your post is published." : "Your draft is saved.");
      navigate(`/posts/${saved.id}`, { replace: true });
    } catch (error) {
      if (opened && error instanceof ApiError && error.code === "precondition_failed") {
        setTheirs(await openPost(opened.post.id));
      }
      throw error;
    }
  };
  const action = useAction(() => save(!isDraft));
  const discard = () => {
    forget();
    navigate(opened ? `/posts/${opened.post.id}` : "/", { replace: true });
  };
  const discarding = useAction(async () => discard());
  const leave = () => (isChanged ? setAsking(true) : discard());
  const saveDraft = () => setDraft(true);
  useEffect(() => {
    if (!isDraft) return;
    action.run();
    setDraft(false);
  }, [isDraft]);
  const canBeDraft = !opened || !opened.post.published;
  const { fields } = action;

  return html`<div class="narrow write">
    <div class="page-head"><h1 tabindex="-1">${opened ? "Edit post" : "Write a post"}</h1></div>
    ${isRestored && html`<p class="notice" role="status">Your unsent text from before is here again. <button type="button" class="link-button" onClick=${leave}>Discard it</button></p>`}
    ${theirs && html`<${Conflict} theirs=${theirs} keepMine=${() => { setVersion(theirs.version); setTheirs(null); action.clear(); }} takeTheirs=${() => { change(valuesOf(theirs.post)); setVersion(theirs.version); setTheirs(null); action.clear(); }} />`}
    <${Form}
      action=${action}
      submit=${opened?.post.published ? "Save" : "Publish"}
      beside=${html`${canBeDraft && html`<button type="button" class="button" onClick=${saveDraft}>${opened ? "Save draft" : "Save as draft"}</button>`}
        ${opened && html`<button type="button" class="button" onClick=${leave}>Cancel</button>`}`}
    >
      <div class="title-field">
        <${Field} label="Title" maxLength=${300} value=${text.title} onText=${(/** @type {string} */ title) => change({ title })} error=${fields.title} />
      </div>
      <${Field} label="Text" rows=${8} maxLength=${40_000} hint="Plain text. Links and @names become links." value=${text.content} onText=${(/** @type {string} */ content) => change({ content })} error=${fields.content} />
      <${TagField} tags=${text.tags} change=${(/** @type {string[]} */ tags) => change({ tags })} error=${fields.tags} />
      <${PictureField} media=${text.media} change=${(/** @type {Picture[]} */ media) => change({ media })} kept=${original.media.map((/** @type {Picture} */ item) => item.id)} error=${fields.media_ids} />
    <//>
    ${isAsking && html`<${Confirm} title="Discard your changes?" text="What you have written here is lost." yes="Discard" action=${discarding} close=${() => setAsking(false)} />`}
  </div>`;
}

/** @param {{theirs: {post: any}, keepMine: () => void, takeTheirs: () => void}} props */
function Conflict({ theirs, keepMine, takeTheirs }) {
  return html`<div class="panel conflict" role="alert">
    <h2>This post was changed elsewhere</h2>
    <p>Someone, perhaps you in another window, has saved it since you opened it. This is the other version:</p>
    <pre tabindex="0"><b>${theirs.post.title}</b>${"\n\n"}${theirs.post.content}</pre>
    <div class="form-buttons">
      <button type="button" class="button button-primary" onClick=${keepMine}>Keep mine, and go on</button>
      <button type="button" class="button" onClick=${takeTheirs}>Take the other version</button>
    </div>
  </div>`;
}

/** @param {Values} post */
const valuesOf = ({ title, content, tags, media }) => ({ title, content, tags, media });

/** @param {string} name */
function keptText(name) {
  try {
    return JSON.parse(localStorage.getItem(name) ?? "null");
  } catch {
    return null;
  }
}

