/** The pictures of a post. Their places are reserved before they are loaded. */

import { fileAddress } from "../api.js";
import { html } from "../vendor/preact.js";

/**
 * `isPreview`: small versions without links. `isInView`: load them before the layout is known to need them.
 * @param {{media: import("../api.js").Schemas["MediaOut"][], isPreview?: boolean, isInView?: boolean}} props
 */
export function Pictures({ media, isPreview = false, isInView = false }) {
  if (media.length === 0) return null;
  /** @param {import("../api.js").Schemas["MediaOut"]} item */
  const picture = (item) => {
    const image = html`<img
      src=${fileAddress(isPreview && media.length > 1 ? item.preview_url : item.url)}
      width=${item.width}
      height=${item.height}
      alt=${item.alt ?? ""}
      loading=${isInView ? "eager" : "lazy"}
      decoding="async"
    />`;
    if (isPreview) return image;
    return html`<a href=${fileAddress(item.url)} target="_blank" aria-label=${`Open picture${item.alt ? `: ${item.alt}` : ""}`}>${image}</a>`;
  };
  return html`<div class="pictures pictures-${media.length} ${isPreview ? "pictures-preview" : ""}">${media.map(picture)}</div>`;
}
