/**
 * What changes without the reader's doing: the number of unread notifications.
 *
 * It is asked for once a minute while the page is visible. This module is the one place to connect a stream of events:
 * `watchUnread` keeps its form, and whatever else becomes live gets a function beside it.
 */

import { get } from "./api.js";

const INTERVAL_SECONDS = 60;

/**
 * Call `show` with the number of unread notifications, now and when it changes. Returns a function that ends this.
 * @param {(unread: number) => void} show
 */
export function watchUnread(show) {
  let last = 0;
  const ask = async () => {
    if (document.visibilityState !== "visible") return;
    last = Date.now();
    try {
      show((await get("/notifications/unread-count")).unread);
    } catch {
      // The badge keeps its number; the next question corrects it.
    }
  };
  const askIfDue = () => {
    if (Date.now() - last >= INTERVAL_SECONDS * 1000) ask();
  };
  ask();
  const timer = setInterval(ask, INTERVAL_SECONDS * 1000);
  document.addEventListener("visibilitychange", askIfDue);
  return () => {
    clearInterval(timer);
    document.removeEventListener("visibilitychange", askIfDue);
  };
}
