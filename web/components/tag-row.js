/** A tag in a list, and the button that follows something. */

import { put, remove } from "../api.js";
import { href, navigate, tagPath } from "../router.js";
import { account, sayError } from "../state.js";
import { count } from "../text.js";
import { html, useRef, useState } from "../vendor/preact.js";

/** @param {{tag: import("../api.js").Schemas["TagOut"]}} props */
export function TagRow({ tag }) {
  const [state, setState] = useState(tag);
  return html`<li class="row">
    <span class="row-text"><a href=${href(tagPath(tag.name))}>#${tag.name}</a> <span class="hint">${count(tag.posts, "post")}</span></span>
    <${FollowButton} path=${`/tags/${encodeURIComponent(tag.name)}/follow`} what=${`#${tag.name}`} isQuiet followed=${state.followed} show=${(change) => setState({ ...state, ...change })} />
  </li>`;
}

/**
 * Follow or unfollow. `show` gets the expected state at once, then the one of the answer.
 * @param {{path: string, what: string, followed: boolean, show: (state: any) => void, isQuiet?: boolean}} props
 */
export function FollowButton({ path, what, followed, show, isQuiet = false }) {
  const busy = useRef(false);
  const toggle = async () => {
    if (!account.value) return navigate("/sign-in");
    if (busy.current) return undefined;
    busy.current = true;
    show({ followed: !followed });
    try {
      show(await (followed ? remove : put)(path));
    } catch (error) {
      show({ followed });
      sayError(error);
    } finally {
      busy.current = false;
    }
    return undefined;
  };
  return html`<button
    type="button"
    class="button button-small ${followed || isQuiet ? "" : "button-primary"}"
    aria-pressed=${followed ? "true" : "false"}
    aria-label=${`Follow ${what}`}
    onClick=${toggle}
  >
    ${followed ? "Following" : "Follow"}
  </button>`;
}
