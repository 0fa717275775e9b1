/**
 * What changes without the reader's doing, from the API's stream `/live`: one `EventSource` for the page.
 *
 * Components say what they show, with `useLive`. A change of that opens a new stream before the old one is closed, so
 * that nothing is missed. If the server refuses the stream, the page asks once a minute for the unread notifications,
 * and then tries again. Hidden pages and visitors have no stream.
 */

import { get, root } from "./api.js";
import { changePost, unread } from "./state.js";
import { useEffect, useRef } from "./vendor/preact.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {{type: string, [field: string]: any}} Message docs/http-contract.md, "Live updates", has the types */

const FALLBACK_SECONDS = 60;
// A list shows many posts at the same time: one new stream for all of them.
const SETTLING_SECONDS = 0.3;
// Readers who look at another tab for a moment keep their stream.
const HIDDEN_SECONDS = 30;
// Limits of the API.
const MAX_POSTS = 200;
const MAX_TAGS = 20;

/** @type {Map<string, number>} topics that components show, and how many of them do */
const shown = new Map();
/** @type {Set<(message: Message) => void>} */
const listeners = new Set();
/** @type {EventSource | null} */
let source = null;
/** @type {EventSource | null} the stream that takes its place once it is open */
let next = null;
/** @type {Set<string>} */
let watched = new Set();
let lastEventId = "";
let isStarted = false;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let hiding;

/** Follow the signed-in account. Returns a function that ends this. */
export function startLive() {
  isStarted = true;
  lastEventId = "";
  document.addEventListener("visibilitychange", follow);
  addEventListener("online", follow);
  addEventListener("offline", follow);
  // A browser may keep the page for Back, with its connections.
  addEventListener("pagehide", close);
  addEventListener("pageshow", follow);
  follow();
  return () => {
    isStarted = false;
    document.removeEventListener("visibilitychange", follow);
    removeEventListener("online", follow);
    removeEventListener("offline", follow);
    removeEventListener("pagehide", close);
    removeEventListener("pageshow", follow);
    clearTimeout(hiding);
    close();
  };
}

/**
 * Watch topics (`post:3`, `tag:sea`, `new`) while the component is shown. `listen` gets every message of the stream.
 * @param {string[]} topics
 * @param {(message: Message) => void} [listen]
 */
export function useLive(topics, listen) {
  const current = useRef(listen);
  current.current = listen;
  useEffect(() => {
    const hear = (/** @type {Message} */ message) => current.current?.(message);
    listeners.add(hear);
    for (const topic of topics) shown.set(topic, (shown.get(topic) ?? 0) + 1);
    // A smaller number of topics needs no other stream.
    if (isStarted && topics.some((topic) => !watched.has(topic))) schedule(SETTLING_SECONDS, connect);
    return () => {
      listeners.delete(hear);
      for (const topic of topics) {
        const left = (shown.get(topic) ?? 0) - 1;
        if (left > 0) shown.set(topic, left);
        else shown.delete(topic);
      }
    };
  }, [topics.join()]);
}

/** Open or close the stream, after the page was hidden or shown, or the device went online or offline. */
function follow() {
  clearTimeout(hiding);
  if (!navigator.onLine) close();
  else if (document.visibilityState !== "visible") hiding = setTimeout(close, HIDDEN_SECONDS * 1000);
  else if (source === null && next === null) schedule(SETTLING_SECONDS, () => connect(lastEventId));
  else if ([...shown.keys()].some((topic) => !watched.has(topic))) schedule(SETTLING_SECONDS, connect);
}

/** @param {number} seconds @param {() => void} action */
function schedule(seconds, action) {
  clearTimeout(timer);
  timer = setTimeout(action, seconds * 1000);
}

function close() {
  clearTimeout(timer);
  source?.close();
  next?.close();
  source = next = null;
  watched = new Set();
}

/** Open a stream of what is shown now. With `since`, it begins with what was missed. */
function connect(since = "") {
  clearTimeout(timer);
  if (!isStarted || !navigator.onLine || document.visibilityState !== "visible") return;
  const topics = [...shown.keys()];
  const posts = topics.filter((topic) => topic.startsWith("post:")).slice(-MAX_POSTS);
  const tags = topics.filter((topic) => topic.startsWith("tag:")).slice(-MAX_TAGS);
  const others = topics.filter((topic) => topic === "new");
  const query = new URLSearchParams({
    posts: posts.map((topic) => topic.slice("post:".length)).join(),
    topics: ["me", ...others, ...tags].join(),
    ...(since && { last_event_id: since }),
  });
  next?.close();
  const opened = (next = new EventSource(`${root}/live?${query}`));
  watched = new Set(topics);
  opened.onmessage = ({ data, lastEventId: id }) => {
    if (opened === next) {
      source?.close();
      source = next;
      next = null;
    }
    if (id) lastEventId = id;
    hear(JSON.parse(data));
  };
  opened.onerror = () => {
    // After a lost connection, the browser connects again by itself, with the last id.
    if (opened.readyState === EventSource.CLOSED && (opened === source || opened === next)) fallBack();
  };
}

/** The server refuses: ask for the number, and try again later. */
async function fallBack() {
  close();
  schedule(FALLBACK_SECONDS, () => connect(lastEventId));
  try {
    unread.set((await get("/notifications/unread-count")).unread);
  } catch {
    // The badge keeps its number. If the session has ended, `api.js` says so.
  }
}

/** @param {Message} message */
function hear(message) {
  if (message.type === "state") {
    for (const one of message.posts) showPost(one);
    if (message.unread) unread.set(message.unread.unread);
  } else if (message.type === "post") showPost(message);
  else if (message.type === "unread") unread.set(message.unread);
  // After `expired` and `stopping`, the browser connects again by itself.
  else if (message.type === "end" && message.reason === "session_ended") fallBack();
  for (const listener of [...listeners]) listener(message);
}

/** @param {Message} message */
function showPost({ id, post }) {
  if (post) changePost(id, { votes: post.votes, comments: post.comments });
}
