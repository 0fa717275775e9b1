/** What several components share: the signed-in account, messages, and changes of posts since they were loaded. */

/** @typedef {import("./api.js").Schemas} Schemas */

import { ApiError, get, onSessionEnd, post } from "./api.js";
import { useEffect, useState } from "./vendor/preact.js";

/**
 * A value whose readers are drawn again when it changes.
 * @template T
 * @param {T} value
 */
export function shared(value) {
  /** @type {Set<(value: T) => void>} */
  const listeners = new Set();
  return {
    get value() {
      return value;
    },
    /** @param {T} next */
    set(next) {
      value = next;
      for (const listener of [...listeners]) listener(next);
    },
    /** @param {(value: T) => void} listener */
    listen(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/**
 * @template T
 * @param {{value: T, listen: (listener: (value: T) => void) => () => void}} store
 * @returns {T}
 */
export function useShared(store) {
  const [value, setValue] = useState(() => store.value);
  useEffect(() => {
    setValue(() => store.value);
    return store.listen((next) => setValue(() => next));
  }, [store]);
  return value;
}

/** The account that is signed in (`OwnAccount`), or null. */
export const account = shared(/** @type {Schemas["OwnAccount"] | null} */ (null));
export const useAccount = () => useShared(account);
/** @param {{role: string} | null} user */
export const isModerator = (user) => user?.role === "moderator" || user?.role === "admin";

export const unread = shared(0);

// Says only that there may be a session, so that a visitor's first page asks nothing that is refused.
const MAYBE_SIGNED_IN = "signed-in";

export async function loadAccount() {
  if (localStorage.getItem(MAYBE_SIGNED_IN) === null) return;
  try {
    account.set(await get("/users/me"));
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 401) throw error;
  }
}

/** After a sign-in. */
export async function startSession() {
  localStorage.setItem(MAYBE_SIGNED_IN, "yes");
  await loadAccount();
}

export async function signOut() {
  await post("/logout");
  endSession();
}

/** Forget everything of the account on this page. */
export function endSession() {
  localStorage.removeItem(MAYBE_SIGNED_IN);
  for (const key of Object.keys(localStorage)) if (key.startsWith("text:")) localStorage.removeItem(key);
  account.set(null);
  unread.set(0);
  changes.clear();
}

onSessionEnd(() => {
  const wasSignedIn = account.value !== null;
  localStorage.removeItem(MAYBE_SIGNED_IN);
  account.set(null);
  if (wasSignedIn) say("You have been signed out. Sign in again to go on.", "error");
});

/** Messages at the edge of the page, which screen readers announce. */
export const messages = shared(/** @type {Array<{id: number, text: string, kind: string}>} */ ([]));
let lastMessage = 0;

/** @param {string} text */
export function say(text, kind = "info") {
  const id = ++lastMessage;
  messages.set([...messages.value.slice(-2), { id, text, kind }]);
  setTimeout(() => unsay(id), kind === "error" ? 9000 : 5000);
}

/** @param {number} id */
export function unsay(id) {
  messages.set(messages.value.filter((message) => message.id !== id));
}

/**
 * Report a failure as a message, unless the reader has left.
 * @param {any} error
 */
export function sayError(error) {
  if (error.name !== "AbortError") say(error.message, "error");
}

// Lists are kept while the reader is elsewhere. What changed meanwhile is laid over their posts.
/** @type {Map<number, Partial<Schemas["PostWithVotes"]>>} */
const changes = new Map();
const changed = shared(0);

/**
 * Show new values of a post wherever it is listed.
 * @param {number} id
 * @param {Partial<Schemas["PostWithVotes"]> & {deleted?: boolean}} change
 */
export function changePost(id, change) {
  changes.set(id, { ...changes.get(id), ...change });
  changed.set(changed.value + 1);
}

/**
 * What is loaded now is newer than the changes before.
 * @param {any[]} items posts, or items of another list
 */
export function forgetChanges(items) {
  for (const { Post } of items) if (Post) changes.delete(Post.id);
}

/**
 * A post with its newest values.
 * @param {Schemas["PostWithVotes"]} item
 * @returns {Schemas["PostWithVotes"] & {deleted?: boolean}}
 */
export function usePost(item) {
  useShared(changed);
  return { ...item, ...changes.get(item.Post.id) };
}
