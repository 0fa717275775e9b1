/** Hooks that load from the API, and keep what they have loaded for Back. */

import { isReady, list, request } from "./api.js";
import { memory } from "./router.js";
import { forgetChanges } from "./state.js";
import { useCallback, useEffect, useRef, useState } from "./vendor/preact.js";

/**
 * Load the JSON of a path; null loads nothing.
 * @param {string | null} path
 * @returns `{data, etag, error, isLoading, set, reload}`; `set` replaces the data without a request
 */
export function useLoaded(path) {
  const state = useKept(path && `one ${path}`);
  const load = useCallback(
    /** @param {AbortSignal} [signal] */
    async (signal) => {
      if (!path) return;
      state.update({ error: null, isLoading: true });
      try {
        const response = await request(path, { signal });
        const data = await response.json();
        forgetChanges([data]);
        state.update({ data, etag: response.headers.get("ETag"), isLoading: false });
      } catch (error) {
        if (!signal?.aborted) state.update({ error, isLoading: false });
      }
    },
    [path],
  );
  useEffect(() => {
    if (!path || state.value.data !== undefined) return undefined;
    const leaving = new AbortController();
    load(leaving.signal);
    return () => leaving.abort();
  }, [path]);
  return { ...state.value, set: (/** @type {unknown} */ data) => state.update({ data }), reload: () => load() };
}

/**
 * Load a list page by page; null loads nothing.
 * @param {string | null} path
 * @returns `{items, hasMore, error, isLoading, loadMore, set, reload}`
 */
export function useList(path) {
  const state = useKept(path && `list ${path}`);
  const { items = [], next = path, error = null, isLoading = false } = state.value;
  const running = useRef(null);
  const loadFrom = useCallback(
    /** @param {string} start @param {boolean} [isReload] */
    async (start, isReload = false) => {
      const replaced = new Set(isReload ? (state.value.items ?? []).map(idOf) : []);
      running.current?.abort();
      const own = (running.current = new AbortController());
      state.update({ error: null, isLoading: true });
      try {
        let found = await list(start, { signal: own.signal });
        // A page may be empty before the end of the list.
        while (found.items.length === 0 && found.next) found = await list(found.next, { signal: own.signal });
        forgetChanges(found.items);
        // What was added while the page arrived stays, such as a comment that was just written.
        const kept = (state.value.items ?? []).filter((/** @type {any} */ item) => !replaced.has(idOf(item)));
        const known = new Set(kept.map(idOf));
        const fresh = found.items.filter((item) => !known.has(idOf(item)));
        state.update({ items: [...kept, ...fresh], next: found.next, isLoading: false });
      } catch (failure) {
        if (!own.signal.aborted) state.update({ error: failure, isLoading: false });
      }
    },
    [path],
  );
  useEffect(() => {
    if (path && state.value.items === undefined) loadFrom(path);
    return () => {
      running.current?.abort();
      state.update({ isLoading: false }); // Else the list would load no more after Back.
    };
  }, [path]);
  const loadMore = () => {
    if (next && !state.value.isLoading) loadFrom(next);
  };
  return {
    items,
    hasMore: Boolean(path) && next !== null,
    error,
    isLoading: isLoading || (Boolean(path) && state.value.items === undefined && !error),
    loadMore,
    set: (/** @type {any[]} */ changed) => state.update({ items: changed }),
    reload: () => path && loadFrom(path, true),
  };
}

const RECOVERY_SECONDS = 4;

/**
 * Call `retry` once the server takes requests again, if it did not when `error` came.
 * @param {import("./api.js").ApiError | null | undefined} error
 * @param {(() => void) | undefined} retry
 */
export function useRecovery(error, retry) {
  const current = useRef(retry);
  current.current = retry;
  const isTemporary = error?.status === 0 || error?.status === 503;
  useEffect(() => {
    if (!isTemporary) return undefined;
    let isHere = true;
    const attempt = async () => {
      if ((await isReady()) && isHere) current.current?.();
    };
    const timer = setInterval(attempt, RECOVERY_SECONDS * 1000);
    addEventListener("online", attempt);
    return () => {
      isHere = false;
      clearInterval(timer);
      removeEventListener("online", attempt);
    };
  }, [isTemporary]);
}

/** @param {any} item */
const idOf = (item) => item.Post?.id ?? item.id ?? item.name;

/**
 * State that the entry of the history keeps.
 * @param {string | null} key
 */
function useKept(key) {
  const [, redraw] = useState(0);
  const store = memory();
  const current = useRef(key);
  current.current = key;
  if (key && !store.has(key)) store.set(key, {});
  return {
    get value() {
      return (key && store.get(key)) || {};
    },
    /** @param {object} change */
    update(change) {
      if (!key) return;
      store.set(key, { ...store.get(key), ...change });
      if (current.current === key) redraw((/** @type {number} */ n) => n + 1);
    },
  };
}

/**
 * A text field's value that survives a reload or a lost connection on this device, until `forget`.
 * @param {string} name
 */
export function useKeptText(name, initial = "") {
  const key = `text:${name}`;
  const [text, setText] = useState(() => localStorage.getItem(key) ?? initial);
  const keep = (/** @type {string} */ value) => {
    setText(value);
    if (value && value !== initial) localStorage.setItem(key, value);
    else localStorage.removeItem(key);
  };
  const forget = () => {
    localStorage.removeItem(key);
    setText("");
  };
  return { text, setText: keep, forget };
}

/**
 * Run an action of a button or form. A second run while one is busy does nothing.
 * @param {(...values: any[]) => Promise<unknown>} action
 * @returns {Action}
 * @typedef {{run: (...values: any[]) => Promise<void>, isBusy: boolean, error: any, fields: Record<string, string>,
 *   clear: () => void}} Action
 */
export function useAction(action) {
  const [state, setState] = useState({ isBusy: false, error: null });
  const busy = useRef(false);
  const run = async (/** @type {any[]} */ ...values) => {
    if (busy.current) return;
    busy.current = true;
    setState({ isBusy: true, error: null });
    try {
      await action(...values);
      setState({ isBusy: false, error: null });
    } catch (error) {
      setState({ isBusy: false, error });
    } finally {
      busy.current = false;
    }
  };
  return { run, ...state, fields: state.error?.fields ?? {}, clear: () => setState({ isBusy: false, error: null }) };
}

/**
 * `value`, once it has not changed for a moment.
 * @param {string} value
 */
export function useSettled(value, milliseconds = 250) {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), milliseconds);
    return () => clearTimeout(timer);
  }, [value, milliseconds]);
  return settled;
}

/**
 * Keep the title of the page.
 * @param {string} title
 */
export function useTitle(title) {
  useEffect(() => {
    document.title = title ? `${title} · Social posts` : "Social posts";
  }, [title]);
}

