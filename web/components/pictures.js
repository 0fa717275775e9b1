/** The pictures of a post. Their places are reserved, and show a blurred placeholder until they are loaded. */

import { fileAddress } from "../api.js";
import { placeholder } from "../blurhash.js";
import { html, useMemo, useState } from "../vendor/preact.js";

/** @typedef {import("../api.js").Schemas["MediaOut"]} Media */

/**
 * `isPreview`: small versions without links. `isInView`: load them before the layout is known to need them.
 * @param {{media: Media[], isPreview?: boolean, isInView?: boolean}} props
 */
export function Pictures({ media, isPreview = false, isInView = false }) {
  if (media.length === 0) return null;
  const picture = (/** @type {Media} */ item) => {
    const path = isPreview && media.length > 1 ? item.preview_url : item.url;
    const image = html`<${Picture} key=${item.id} item=${item} path=${path} isInView=${isInView} />`;
    if (isPreview) return image;
    return html`<a key=${item.id} href=${fileAddress(item.url)} target="_blank" aria-label=${`Open picture${item.alt ? `: ${item.alt}` : ""}`}>${image}</a>`;
  };
  return html`<div class="pictures pictures-${media.length} ${isPreview ? "pictures-preview" : ""}">${media.map(picture)}</div>`;
}

/** @param {{item: Media, path: string, isInView: boolean}} props */
function Picture({ item, path, isInView }) {
  const [isWaiting, setWaiting] = useState(true);
  const blurred = useMemo(() => placeholder(item.blurhash), [item.blurhash]);
  const end = () => setWaiting(false);
  // The style of an element of its own: no policy forbids it, unlike an attribute.
  const style = {
    "--width": `${item.width}px`,
    "--ratio": String(item.width / item.height),
    ...(isWaiting && blurred && { backgroundImage: `url(${blurred})` }),
  };
  return html`<img
    src=${fileAddress(path)}
    width=${item.width}
    height=${item.height}
    alt=${item.alt ?? ""}
    style=${style}
    loading=${isInView ? "eager" : "lazy"}
    decoding="async"
    onLoad=${end}
    onError=${end}
  />`;
}
