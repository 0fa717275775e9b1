/** A form for a comment, a reply, or a change of a comment. Unsent text is kept on this device. */

import { newKey, patch, post } from "../api.js";
import { useAction, useKeptText } from "../loading.js";
import { html, useEffect, useRef } from "../vendor/preact.js";
import { Field, Form } from "./form.js";

/**
 * @param {{name: string, path: string, label: string, submit: string, done: (comment: any) => void, parentId?: number,
 *   initial?: string, version?: string, cancel?: () => void}} props `name` is that of the kept text; with `version`, the
 *   form changes the comment at `path`
 */
export function CommentForm({ name, path, label, submit, done, parentId, initial = "", version, cancel }) {
  const { text, setText, forget } = useKeptText(name, initial);
  const key = useRef(newKey());
  const element = useRef(null);
  useEffect(() => {
    if (cancel) element.current.querySelector("textarea").focus();
  }, []);
  const write = (value) => {
    key.current = newKey();
    setText(value);
  };
  const action = useAction(async () => {
    const comment = version
      ? await patch(path, { content: text }, { headers: { "If-Match": version } })
      : await post(path, { content: text, ...(parentId && { parent_id: parentId }) }, { key: key.current });
    key.current = newKey();
    forget();
    done(comment);
  });
  const quit = () => {
    forget();
    cancel?.();
  };
  const isOpen = Boolean(cancel || text);
  const onKeyDown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) action.run();
  };
  return html`<div ref=${element} class="comment-form ${isOpen ? "is-open" : ""}">
    <${Form} action=${action} submit=${submit} beside=${cancel && html`<button type="button" class="button" onClick=${quit}>Cancel</button>`}>
      <${Field} label=${label} rows=${isOpen ? 3 : 1} maxLength=${10_000} value=${text} onText=${write} error=${action.fields.content} onKeyDown=${onKeyDown} />
    <//>
  </div>`;
}
