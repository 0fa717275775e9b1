/** The pictures of a post: upload, description for those who do not see them, order, removal. */

import { fileAddress, newKey, remove, upload } from "../api.js";
import { html, useId, useRef, useState } from "../vendor/preact.js";
import { Icon } from "./icon.js";

const MAX_PICTURES = 4;
export const PICTURE_TYPES = "image/jpeg,image/png,image/webp,image/gif";

/** `kept` are the ids of pictures that the saved post shows: only saving the post changes these. */
export function PictureField({ media, change, kept, error }) {
  const id = useId();
  const [busy, setBusy] = useState(0);
  const [problem, setProblem] = useState("");
  const current = useRef(media);
  current.current = media;
  const set = (changed) => {
    current.current = changed;
    change(changed);
  };
  const add = async (event) => {
    const files = [...event.currentTarget.files].slice(0, MAX_PICTURES - media.length);
    event.currentTarget.value = "";
    setProblem("");
    for (const file of files) {
      setBusy((number) => number + 1);
      try {
        set([...current.current, await upload(file, "", newKey())]);
      } catch (failure) {
        setProblem(`${file.name}: ${failure instanceof Error ? failure.message : failure}`);
      } finally {
        setBusy((number) => number - 1);
      }
    }
  };
  const drop = (item) => {
    set(media.filter(({ id: other }) => other !== item.id));
    // The server deletes unused pictures after a day in any case.
    if (!kept.includes(item.id)) remove(`/media/${item.id}`).catch(() => {});
  };
  const describe = (item, alt) => set(media.map((other) => (other.id === item.id ? { ...other, alt } : other)));
  return html`<div class="field" role="group" aria-labelledby="${id}-label">
    <span class="label" id="${id}-label">Pictures</span>
    <ul class="uploads">
      ${media.map(
        (item, index) => html`<li class="upload" key=${item.id}>
          <img src=${fileAddress(item.preview_url)} alt="" />
          <div class="field">
            <label for="${id}-${item.id}">What does picture ${index + 1} show?</label>
            <textarea
              id="${id}-${item.id}"
              rows="2"
              maxlength="1500"
              placeholder="For readers who cannot see it"
              value=${item.alt ?? ""}
              onInput=${(event) => describe(item, event.currentTarget.value)}
            ></textarea>
          </div>
          <button type="button" class="icon-button" aria-label=${`Remove picture ${index + 1}`} onClick=${() => drop(item)}><${Icon} name="close" /></button>
        </li>`,
      )}
    </ul>
    ${media.length < MAX_PICTURES &&
    html`<div>
      <label class="button file-button">
        <${Icon} name="picture" />${busy > 0 ? "Uploading…" : "Add pictures"}
        <input type="file" accept=${PICTURE_TYPES} multiple aria-describedby="${id}-hint" onChange=${add} />
      </label>
    </div>`}
    <p class="hint" id="${id}-hint" role="status">${busy > 0 ? "Uploading…" : "Up to four: JPEG, PNG, WebP or GIF."}</p>
    ${(problem || error) && html`<p class="field-error" role="alert">${problem || error}</p>`}
  </div>`;
}
