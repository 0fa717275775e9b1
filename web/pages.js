/** All pages by their address. The front page is part of the first load; the others are loaded when visited. */

import * as front from "./pages/front.js";

const ROUTES = [
  ["/", null, front],
  ["/home", null, front, { feed: "home" }],
  ["/search", () => import("./pages/search.js")],
  ["/tags", () => import("./pages/tags.js")],
  ["/tags/:name", () => import("./pages/tag.js")],
  ["/posts/:id", () => import("./pages/post.js")],
  ["/posts/:id/edit", () => import("./pages/write.js")],
  ["/write", () => import("./pages/write.js")],
  ["/users/:username", () => import("./pages/profile.js")],
  ["/users/:username/:tab", () => import("./pages/profile.js")],
  ["/bookmarks", () => import("./pages/bookmarks.js")],
  ["/notifications", () => import("./pages/notifications.js")],
  ["/settings", () => import("./pages/settings.js")],
  ["/settings/:section", () => import("./pages/settings.js")],
  ["/sign-in", () => import("./pages/sign-in.js")],
  ["/sign-up", () => import("./pages/sign-up.js")],
  ["/password-reset", () => import("./pages/password-reset.js")],
  ["/email-verification", () => import("./pages/email-verification.js")],
  ["/moderation", () => import("./pages/moderation.js")],
  ["/moderation/:tab", () => import("./pages/moderation.js")],
  ["/admin/users", () => import("./pages/admin-users.js")],
].map(([pattern, load, module, params]) => {
  const route = { pattern: new RegExp(`^${pattern.replace(/:(\w+)/g, "(?<$1>[^/]+)")}$`), module, params };
  return Object.assign(route, { load: load ? async () => (route.module = await load()) : async () => module });
});

const missing = { load: () => import("./pages/missing.js") };

/** The page of a path: `{load, module, params}`. `module` is there if it needs no loading. */
export function pageOf(path) {
  for (const route of ROUTES) {
    const found = route.pattern.exec(path);
    if (!found) continue;
    const named = Object.entries(found.groups ?? {}).map(([name, value]) => [name, decoded(value)]);
    return { ...route, params: { ...route.params, ...Object.fromEntries(named) } };
  }
  return { ...missing, params: {} };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
