/** Links between views of one thing. Where they do not fit, they scroll, and the current one is in view. */

import { href } from "../router.js";
import { html, useLayoutEffect, useRef } from "../vendor/preact.js";

/** @param {{label: string, tabs: Array<{path: string, text: string, isCurrent: boolean} | false | null>, class?: string}} props */
export function Tabs({ label, tabs, class: kind = "feeds" }) {
  const element = useRef(null);
  const current = tabs.findIndex((tab) => tab && tab.isCurrent);
  useLayoutEffect(() => {
    const { current: nav } = element;
    const link = nav.querySelector("[aria-current]");
    if (link) nav.scrollLeft = link.offsetLeft - (nav.clientWidth - link.offsetWidth) / 2;
  }, [current]);
  return html`<nav class=${kind} aria-label=${label} ref=${element}>
    ${tabs.map(
      (tab) => tab && html`<a key=${tab.path} href=${href(tab.path)} aria-current=${tab.isCurrent ? "page" : undefined}>${tab.text}</a>`,
    )}
  </nav>`;
}
