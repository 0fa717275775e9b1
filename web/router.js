/**
 * Addresses and pages. Every link below `/web/` changes the page without loading it anew.
 *
 * Each entry of the browser's history has a key. What a page has loaded is kept under the key of its entry, so that Back
 * shows the same items at the same place, and a new visit loads anew.
 */

import { root } from "./api.js";
import { shared } from "./state.js";

const BASE = `${root}/web`;
const MAX_KEPT_ENTRIES = 30;

history.scrollRestoration = "manual";

/**
 * Address of a page of the client: `href("/posts/1")`.
 * @param {string} path
 */
export const href = (path) => BASE + path;

/**
 * Path of a user's page.
 * @param {{username: string}} user
 */
export const userPath = (user) => `/users/${encodeURIComponent(user.username)}`;
/** @param {string} name */
export const tagPath = (name) => `/tags/${encodeURIComponent(name)}`;

/** Where the reader is: `path`, `query`, `hash`, and `key` of the history's entry. */
export const place = shared(read());

const kept = new Map(); // By key: {data, scroll}.
/** @type {(() => boolean) | null} */
let leaveGuard = null;

/**
 * Ask before the page is left while `guard()` returns true. Returns a function that ends this.
 * @param {() => boolean} guard
 */
export function guardLeaving(guard) {
  leaveGuard = guard;
  return () => {
    if (leaveGuard === guard) leaveGuard = null;
  };
}

const mayLeave = () => !leaveGuard?.() || window.confirm("Leave this page? Your text is kept on this device.");

/**
 * Go to a page. `replace` overwrites the current entry of the history.
 * @param {string} path
 */
export function navigate(path, { replace = false } = {}) {
  if (!replace && !mayLeave()) return;
  rememberScroll();
  const key = replace ? place.value.key : newKey();
  history[replace ? "replaceState" : "pushState"]({ key }, "", BASE + path);
  place.set({ ...read(), cause: replace ? "replace" : "push" });
}

/** Data that the page of the current entry keeps. */
export function memory() {
  const { key } = place.value;
  if (!kept.has(key)) {
    kept.set(key, { data: new Map(), scroll: 0 });
    if (kept.size > MAX_KEPT_ENTRIES) kept.delete(kept.keys().next().value);
  }
  return kept.get(key).data;
}

/** Forget what other pages have loaded, as after a sign-in. The current one shows its own changes. */
export function forgetPages() {
  for (const key of [...kept.keys()]) if (key !== place.value.key) kept.delete(key);
}

/** Scroll to where the reader was in this entry of the history; to the top of a new one. Waits for late content. */
export function restoreScroll() {
  const { key, hash } = place.value;
  const wanted = kept.get(key)?.scroll ?? 0;
  if (wanted === 0 && hash) return;
  const began = performance.now();
  const attempt = () => {
    window.scrollTo(0, wanted);
    const isShort = document.documentElement.scrollHeight - window.innerHeight < wanted;
    if (isShort && performance.now() - began < 1500 && place.value.key === key) requestAnimationFrame(attempt);
  };
  attempt();
}

function rememberScroll() {
  const entry = kept.get(place.value.key);
  if (entry) entry.scroll = window.scrollY;
}

function read() {
  let key = history.state?.key;
  if (!key) {
    key = newKey();
    history.replaceState({ key }, "");
  }
  const path = location.pathname.slice(BASE.length).replace(/\/$/, "") || "/";
  return { path, query: new URLSearchParams(location.search), hash: location.hash.slice(1), key, cause: "load" };
}

function newKey() {
  return Math.random().toString(36).slice(2);
}

addEventListener("popstate", () => {
  rememberScroll();
  place.set({ ...read(), cause: "back" });
});
addEventListener("scroll", () => requestAnimationFrame(rememberScroll), { passive: true });
addEventListener("beforeunload", (event) => {
  if (leaveGuard?.()) event.preventDefault();
});

document.addEventListener("click", (event) => {
  const link = event.target instanceof Element ? event.target.closest("a[href]") : null;
  if (!(link instanceof HTMLAnchorElement) || event.defaultPrevented || event.button !== 0) return;
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  if (link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
  if (link.pathname !== BASE && !link.pathname.startsWith(`${BASE}/`)) return;
  const isSamePage = link.pathname === location.pathname && link.search === location.search;
  if (isSamePage && link.hash) return; // An anchor.
  event.preventDefault();
  navigate(link.pathname.slice(BASE.length) + link.search + link.hash);
});
