/** The vote for a post or comment: shown at once, corrected by the answer, taken back if that fails. */

import { toggleVote } from "../api.js";
import { navigate } from "../router.js";
import { account, sayError } from "../state.js";
import { shortNumber } from "../text.js";
import { html, useRef, useState } from "../vendor/preact.js";
import { Icon } from "./icon.js";

/** @param {{path: string, votes: number, voted: boolean, show: (state: {votes: number, voted: boolean}) => void, isOff?: boolean}} props */
export function VoteButton({ path, votes, voted, show, isOff = false }) {
  // Two requests at once may arrive in either order.
  const busy = useRef(false);
  const [isBusy, setBusy] = useState(false);
  const vote = async () => {
    if (!account.value) return navigate("/sign-in");
    if (busy.current || isOff) return undefined;
    busy.current = true;
    setBusy(true);
    try {
      await toggleVote(path, { votes, voted }, show);
    } catch (error) {
      sayError(error);
    } finally {
      busy.current = false;
      setBusy(false);
    }
    return undefined;
  };
  const label = `${voted ? "Take back your vote" : "Vote"}, ${votes} ${votes === 1 ? "vote" : "votes"}`;
  return html`<button
    type="button"
    class="vote ${voted ? "is-on" : ""}"
    aria-pressed=${voted ? "true" : "false"}
    aria-label=${label}
    aria-disabled=${isBusy || isOff ? "true" : undefined}
    onClick=${vote}
  >
    <${Icon} name="up" /><span>${shortNumber(votes)}</span>
  </button>`;
}
