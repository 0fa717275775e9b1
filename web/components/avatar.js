/** The picture of a user, or the first letter of the name on a colour of its own. */

import { fileAddress } from "../api.js";
import { html } from "../vendor/preact.js";

const COLOURS = 8;

/** @param {{user: {username: string, display_name?: string | null, avatar?: import("../api.js").Schemas["MediaOut"] | null}, size?: "small" | "large"}} props */
export function Avatar({ user, size = "small" }) {
  if (user.avatar) {
    const { preview_url: address } = user.avatar;
    return html`<img class="avatar avatar-${size}" src=${fileAddress(address)} alt="" loading="lazy" />`;
  }
  const name = user.display_name || user.username;
  const colour = [...user.username].reduce((sum, character) => sum + (character.codePointAt(0) ?? 0), 0) % COLOURS;
  return html`<span class="avatar avatar-${size} avatar-colour-${colour}" aria-hidden="true">
    ${[...name][0].toUpperCase()}
  </span>`;
}
