/** A modal dialog, and a menu behind a button. */

import { html, useEffect, useId, useLayoutEffect, useRef, useState } from "../vendor/preact.js";
import { Icon } from "./icon.js";

// The bars at the edges of the window, in pixels.
const BAR_HEIGHT = 64;

/**
 * The browser keeps the focus inside, and closes it with Escape. The focus then returns to where it was.
 * @param {{title: string, close: () => void, children?: unknown}} props
 */
export function Dialog({ title, close, children }) {
  const element = useRef(null);
  const id = useId();
  useEffect(() => {
    const before = document.activeElement;
    element.current.showModal();
    element.current.querySelector("form input, form textarea, form select")?.focus();
    return () => {
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);
  const closeOutside = (/** @type {any} */ event) => {
    if (event.target === element.current) close();
  };
  return html`<dialog ref=${element} class="dialog" aria-labelledby=${id} onClose=${close} onClick=${closeOutside}>
    <div class="dialog-content">
      <div class="dialog-head">
        <h2 id=${id}>${title}</h2>
        <button class="icon-button" type="button" onClick=${close} aria-label="Close"><${Icon} name="close" /></button>
      </div>
      ${children}
    </div>
  </dialog>`;
}

/**
 * A dialog that asks before something final.
 * @param {{title: string, text: string, yes: string, action: import("../loading.js").Action, close: () => void}} props
 */
export function Confirm({ title, text, yes, action, close }) {
  return html`<${Dialog} title=${title} close=${close}>
    <p>${text}</p>
    ${action.error && html`<p class="form-error" role="alert">${action.error.message}</p>`}
    <div class="form-buttons">
      <button class="button button-danger" onClick=${() => action.run()} aria-disabled=${action.isBusy}>${yes}</button>
      <button class="button" onClick=${close}>Cancel</button>
    </div>
  <//>`;
}

/**
 * A button that opens a list of actions.
 * @param {{label: string, items: Array<{text: string, onClick?: () => void, href?: string} | false | null | undefined>,
 *   children?: unknown, class?: string}} props
 */
export function Menu({ label, items, children, class: kind = "icon-button" }) {
  const [isOpen, setOpen] = useState(false);
  const element = useRef(null);
  const [place, setPlace] = useState("");
  useLayoutEffect(() => setPlace(isOpen ? placeOf(element.current.querySelector(".menu-items")) : ""), [isOpen]);
  useEffect(() => {
    if (!isOpen) return undefined;
    element.current.querySelector(".menu-items a, .menu-items button")?.focus();
    const closeOutside = (/** @type {any} */ event) => {
      if (!element.current?.contains(event.target)) setOpen(false);
    };
    document.addEventListener("pointerdown", closeOutside);
    return () => document.removeEventListener("pointerdown", closeOutside);
  }, [isOpen]);
  const shown = items.filter(Boolean);
  if (shown.length === 0) return null;
  const onKey = (/** @type {any} */ event) => {
    if (event.key === "Escape" && isOpen) {
      event.preventDefault();
      setOpen(false);
      element.current.querySelector("button").focus();
    }
    if (isOpen && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
      event.preventDefault();
      const entries = [...element.current.querySelectorAll(".menu-items a, .menu-items button")];
      const step = event.key === "ArrowDown" ? 1 : -1;
      entries[(entries.indexOf(document.activeElement) + step + entries.length) % entries.length].focus();
    }
  };
  const onBlur = (/** @type {any} */ event) => {
    if (event.relatedTarget && !element.current.contains(event.relatedTarget)) setOpen(false);
  };
  const entry = (/** @type {any} */ item) => {
    const onClick = () => {
      setOpen(false);
      item.onClick?.();
    };
    return html`<li>
      ${item.href
        ? html`<a href=${item.href} onClick=${onClick}>${item.text}</a>`
        : html`<button type="button" onClick=${onClick}>${item.text}</button>`}
    </li>`;
  };
  return html`<div class="menu" ref=${element} onKeyDown=${onKey} onFocusOut=${onBlur}>
    <button type="button" class=${kind} aria-label=${label} aria-expanded=${isOpen ? "true" : "false"} onClick=${() => setOpen(!isOpen)}>
      ${children ?? html`<${Icon} name="more" />`}
    </button>
    ${isOpen && html`<ul class="menu-items ${place}">${shown.map(entry)}</ul>`}
  </div>`;
}

/**
 * Classes that keep the entries of a menu within the window: above the button, or to its right.
 * @param {HTMLElement} entries at their usual place
 */
function placeOf(entries) {
  const { top, bottom, left, height } = entries.getBoundingClientRect();
  const isTooLow = bottom > innerHeight - BAR_HEIGHT && top - height > BAR_HEIGHT;
  return `${isTooLow ? "is-above" : ""} ${left < 0 ? "is-right" : ""}`;
}
