/** All pages by their address. The front page is part of the first load; the others are loaded when visited. */

import * as front from "./pages/front.js";

/**
 * A page: the pattern of its path, and its module, which may have to be loaded.
 * @typedef {{pattern: RegExp, load: () => Promise<any>, module?: any, params?: Record<string, string>}} Route
 */

/** @type {Route[]} */
const ROUTES = [
  loaded("/", front),
  loaded("/home", front, { feed: "home" }),
  lazy("/search", () => import("./pages/search.js")),
  lazy("/tags", () => import("./pages/tags.js")),
  lazy("/tags/:name", () => import("./pages/tag.js")),
  lazy("/posts/:id", () => import("./pages/post.js")),
  lazy("/posts/:id/edit", () => import("./pages/write.js")),
  lazy("/write", () => import("./pages/write.js")),
  lazy("/users/:username", () => import("./pages/profile.js")),
  lazy("/users/:username/:tab", () => import("./pages/profile.js")),
  lazy("/bookmarks", () => import("./pages/bookmarks.js")),
  lazy("/notifications", () => import("./pages/notifications.js")),
  lazy("/settings", () => import("./pages/settings.js")),
  lazy("/settings/:section", () => import("./pages/settings.js")),
  lazy("/sign-in", () => import("./pages/sign-in.js")),
  lazy("/sign-up", () => import("./pages/sign-up.js")),
  lazy("/password-reset", () => import("./pages/password-reset.js")),
  lazy("/email-verification", () => import("./pages/email-verification.js")),
  lazy("/moderation", () => import("./pages/moderation.js")),
  lazy("/moderation/:tab", () => import("./pages/moderation.js")),
  lazy("/admin/users", () => import("./pages/admin-users.js")),
];

/** @type {Route} */
const MISSING = lazy("/missing", () => import("./pages/missing.js"));

/** @param {string} path @param {object} module @returns {Route} */
function loaded(path, module, params = {}) {
  return { pattern: patternOf(path), load: async () => module, module, params };
}

/** @param {string} path @param {() => Promise<object>} load @returns {Route} */
function lazy(path, load) {
  /** @type {Route} */
  const route = { pattern: patternOf(path), load: async () => (route.module = await load()), module: undefined };
  return route;
}

/** @param {string} path */
function patternOf(path) {
  return new RegExp(`^${path.replace(/:(\w+)/g, "(?<$1>[^/]+)")}$`);
}

/**
 * The page of a path. `module` is there if it needs no loading.
 * @param {string} path
 */
export function pageOf(path) {
  for (const route of ROUTES) {
    const found = route.pattern.exec(path);
    if (!found) continue;
    const named = Object.entries(found.groups ?? {}).map(([name, value]) => [name, decoded(value)]);
    return { ...route, params: { ...route.params, ...Object.fromEntries(named) } };
  }
  return { ...MISSING, params: {} };
}

/** @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
