/** Icons, drawn for this client on a grid of 24. Decorative: the text beside them, or `aria-label`, says what they mean. */

import { html } from "../vendor/preact.js";

/** @type {Record<string, string>} */
const PATHS = {
  home: "M3 11.5 12 4l9 7.5M5.5 9.8V20h5v-5.5h3V20h5V9.8",
  search: "M10.5 4a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13zM15.5 15.5 20.5 20.5",
  write: "M12 5v14M5 12h14",
  bell: "M6 16.5V11a6 6 0 1 1 12 0v5.5l1.5 1.5h-15zM10 20.5a2.2 2.2 0 0 0 4 0",
  user: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4.5 20.5c.6-3.9 3.6-6 7.5-6s6.9 2.1 7.5 6",
  up: "M12 19V5.5M6 11l6-6 6 6",
  comment: "M4 5.500h16v11h-8.500L7 20.500v-4H4z",
  bookmark: "M6.5 4h11v16.500L12 16.500l-5.5 4z",
  more: "M5.5 12h.01M12 12h.01M18.5 12h.01",
  close: "M6 6l12 12M18 6 6 18",
  back: "M19 12H5.500M11 6l-6 6 6 6",
  tag: "M4 4h8l8.5 8.5-8 8L4 12zM8.2 8.200h.01",
  shield: "M12 3.5 19.5 6v6c0 4.5-3.2 7.4-7.5 8.500C7.7 19.4 4.5 16.5 4.5 12V6z",
  gear: "M12 15.200a3.2 3.2 0 1 0 0-6.4 3.2 3.2 0 0 0 0 6.400zM19.3 13.700l1.7 1.3-2 3.4-2-.8-1.8 1-.3 2.200h-4l-.3-2.2-1.8-1-2 .8-2-3.4 1.7-1.300v-3.400L3 9l2-3.4 2 .8 1.8-1 .3-2.200h4l.3 2.2 1.8 1 2-.8 2 3.4-1.7 1.300z",
  lock: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 1 1 7 0v3",
  picture: "M4 5h16v14H4zM4 16l4.5-4.5 4 4 3-3L20 17M15.5 9h.01",
  check: "M5 12.500l4.5 4.500L19 7.5",
};

/** @param {{name: string, isFilled?: boolean}} props */
export function Icon({ name, isFilled = false }) {
  return html`<svg
    class="icon"
    viewBox="0 0 24 24"
    aria-hidden="true"
    fill=${isFilled ? "currentColor" : "none"}
    stroke="currentColor"
    stroke-width=${name === "more" || name === "tag" ? 2.2 : 1.8}
    stroke-linecap="round"
    stroke-linejoin="round"
  >
    <path d=${PATHS[name]} />
  </svg>`;
}
