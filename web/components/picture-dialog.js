/** A picture in full size. */

import { fileAddress } from "../api.js";
import { html } from "../vendor/preact.js";
import { Dialog } from "./dialog.js";

/** @param {{picture: import("../api.js").Schemas["MediaOut"], title: string, close: () => void}} props */
export function PictureDialog({ picture, title, close }) {
  return html`<${Dialog} title=${title} close=${close}>
    <img src=${fileAddress(picture.url)} width=${picture.width} height=${picture.height} alt=${picture.alt ?? ""} />
  <//>`;
}
