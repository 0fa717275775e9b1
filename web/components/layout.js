/** What surrounds every page: the bar with search and account, navigation, messages. */

import { registration } from "../api.js";
import { startLive } from "../live.js";
import { forgetPages, href, navigate, userPath } from "../router.js";
import { isModerator, messages, sayError, signOut, unread, unsay, useAccount, useShared } from "../state.js";
import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { Avatar } from "./avatar.js";
import { Menu } from "./dialog.js";
import { Icon } from "./icon.js";

/** @param {{here: import("../router.js").Place, children?: unknown}} props */
export function Layout({ here, children }) {
  const me = useAccount();
  const number = useShared(unread);
  useEffect(() => (me ? startLive() : undefined), [me?.id]);
  const skip = (/** @type {any} */ event) => {
    event.preventDefault();
    document.getElementById("content")?.focus();
  };
  return html`<div class="layout">
    <a class="skip" href="#content" onClick=${skip}>Skip to content</a>
    <header class="bar">
      <div class="bar-content">
        <a class="brand" href=${href("/")} aria-label="Social posts, front page"><${Logo} /><span>Social posts</span></a>
        <${Search} here=${here} />
        ${me ? html`<${Account} me=${me} number=${number} here=${here} />` : html`<${Visitor} />`}
      </div>
    </header>
    <${Connection} />
    <main id="content" tabindex="-1">${children}</main>
    ${me && html`<${Tabs} me=${me} number=${number} here=${here} />`}
    <${Messages} />
  </div>`;
}

function Logo() {
  return html`<svg class="logo" viewBox="0 0 32 32" aria-hidden="true">
    <rect width="32" height="32" rx="9" /><path d="M8 9.5h16v11H15l-5 4v-4H8z" />
  </svg>`;
}

/**
 * Search as one types. The address follows, so that a search can be shared.
 * @param {{here: import("../router.js").Place}} props
 */
function Search({ here }) {
  const isSearching = here.path === "/search";
  const query = isSearching ? (here.query.get("q") ?? "") : "";
  const [text, setText] = useState(query);
  const timer = useRef(0);
  const field = useRef(null);
  useEffect(() => {
    if (document.activeElement !== field.current) setText(query);
  }, [query, isSearching]);
  useEffect(() => {
    const focus = (/** @type {any} */ event) => {
      const isTyping = event.target.closest?.("input, textarea, select, dialog");
      if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      field.current.focus();
    };
    document.addEventListener("keydown", focus);
    return () => document.removeEventListener("keydown", focus);
  }, []);
  const search = (/** @type {string} */ value) => {
    clearTimeout(timer.current);
    if (!value.trim() && !isSearching) return;
    navigate(`/search?q=${encodeURIComponent(value.trim())}`, { replace: isSearching });
  };
  const onInput = (/** @type {any} */ event) => {
    const { value } = event.currentTarget;
    setText(value);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => search(value), 300);
  };
  const onSubmit = (/** @type {any} */ event) => {
    event.preventDefault();
    search(text);
  };
  return html`<form class="search" role="search" onSubmit=${onSubmit}>
    <${Icon} name="search" />
    <input ref=${field} type="search" aria-label="Search posts, people and tags" placeholder="Search" enterkeyhint="search" maxlength="200" value=${text} onInput=${onInput} />
  </form>`;
}

function Visitor() {
  return html`<nav class="bar-links" aria-label="Account">
    <a class="button button-small" href=${href("/sign-in")}>Sign in</a>
    ${registration !== "closed" && html`<a class="button button-small button-primary wide-only" href=${href("/sign-up")}>Sign up</a>`}
  </nav>`;
}

/** @param {{me: import("../api.js").Schemas["OwnAccount"], number: number, here: import("../router.js").Place}} props */
function Account({ me, number, here }) {
  const leave = async () => {
    try {
      await signOut();
      forgetPages();
      navigate("/");
    } catch (error) {
      sayError(error);
    }
  };
  const items = [
    { text: "Your profile", href: href(userPath(me)) },
    { text: "Drafts", href: href(`${userPath(me)}/drafts`) },
    { text: "Bookmarks", href: href("/bookmarks") },
    isModerator(me) && { text: "Moderation", href: href("/moderation") },
    me.role === "admin" && { text: "Users", href: href("/admin/users") },
    { text: "Settings", href: href("/settings") },
    { text: "Sign out", onClick: leave },
  ];
  return html`<nav class="bar-links" aria-label="Account">
    <a class="button button-small button-primary wide-only" href=${href("/write")}><${Icon} name="write" />Write</a>
    <a class="icon-button wide-only" href=${href("/notifications")} aria-label=${bell(number)} aria-current=${current(here, "/notifications")}>
      <${Icon} name="bell" /><${Badge} number=${number} />
    </a>
    <${Menu} label="Your account" class="avatar-button" items=${items}><${Avatar} user=${me} /><//>
  </nav>`;
}

/**
 * On phones: the most frequent places, within reach of the thumb.
 * @param {{me: import("../api.js").Schemas["OwnAccount"], number: number, here: import("../router.js").Place}} props
 */
function Tabs({ me, number, here }) {
  const tab = (/** @type {string} */ path, /** @type {string} */ icon, /** @type {string} */ text, /** @type {unknown} */ badge = null) => html`<a href=${href(path)} aria-current=${current(here, path)}>
    <${Icon} name=${icon} /><span>${text}</span>${badge}
  </a>`;
  return html`<nav class="tab-bar" aria-label="Main">
    ${tab("/", "home", "Posts")} ${tab("/tags", "tag", "Tags")} ${tab("/write", "write", "Write")}
    ${tab("/notifications", "bell", "Alerts", html`<${Badge} number=${number} /><span class="visually-hidden">${number > 0 && `, ${number} unread`}</span>`)}
    ${tab(userPath(me), "user", "You")}
  </nav>`;
}

/** @param {number} number */
const bell = (number) => (number > 0 ? `Notifications, ${number} unread` : "Notifications");
/** @param {import("../router.js").Place} here @param {string} path */
const current = (here, path) => (here.path === path ? "page" : undefined);

/** @param {{number: number}} props */
function Badge({ number }) {
  return number > 0 && html`<span class="count" aria-hidden="true">${number > 99 ? "99+" : number}</span>`;
}

function Connection() {
  const [isOnline, setOnline] = useState(navigator.onLine);
  useEffect(() => {
    const update = () => setOnline(navigator.onLine);
    addEventListener("online", update);
    addEventListener("offline", update);
    return () => {
      removeEventListener("online", update);
      removeEventListener("offline", update);
    };
  }, []);
  return html`<div role="status">
    ${!isOnline && html`<p class="offline">You are offline. What you write stays on this device.</p>`}
  </div>`;
}

function Messages() {
  const shown = useShared(messages);
  return html`<div class="messages" role="status" aria-live="polite">
    ${shown.map(
      ({ id, text, kind }) => html`<div key=${id} class="message message-${kind}">
        <span>${text}</span>
        <button type="button" class="icon-button" aria-label="Dismiss" onClick=${() => unsay(id)}><${Icon} name="close" /></button>
      </div>`,
    )}
  </div>`;
}
