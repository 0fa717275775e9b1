/** A link to an Atom feed, for people and for feed readers. Without an account, they can read only public sites. */

import { publicReads, root } from "../api.js";
import { html, useEffect } from "../vendor/preact.js";

/** @param {{path: string, title: string}} props `title` is for feed readers, which find it in the head of the page */
export function FeedLink({ path, title }) {
  const address = root + path;
  useEffect(() => {
    if (!publicReads) return undefined;
    const link = document.createElement("link");
    Object.assign(link, { rel: "alternate", type: "application/atom+xml", title, href: address });
    document.head.append(link);
    return () => link.remove();
  }, [address, title]);
  return publicReads && html`<a class="quiet" href=${address} type="application/atom+xml" aria-label=${title}>Atom feed</a>`;
}
