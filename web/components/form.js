/** Fields with labels, hints and errors, and the buttons of forms. */

import { html, useEffect, useId, useLayoutEffect, useRef, useState } from "../vendor/preact.js";

/**
 * A labelled input. `error` is shown below it and announced with it.
 * Other properties are those of `<input>`, or of `<textarea>` with `rows`.
 * @param {{label: string, hint?: string, error?: string, value: string, onText: (value: string) => void, rows?: number}
 *   & Record<string, any>} props
 */
export function Field({ label, hint, error, value, onText, rows, ...input }) {
  const id = useId();
  const described = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ") || undefined;
  const shared = {
    id,
    value,
    "aria-invalid": error ? "true" : undefined,
    "aria-describedby": described,
    onInput: (/** @type {any} */ event) => onText(event.currentTarget.value),
    ...input,
  };
  return html`<div class="field">
    <label for=${id}>${label}</label>
    ${rows ? html`<${GrowingText} rows=${rows} ...${shared} />` : html`<input type="text" ...${shared} />`}
    ${hint && html`<p class="hint" id="${id}-hint">${hint}</p>`}
    ${error && html`<p class="field-error" id="${id}-error">${error}</p>`}
  </div>`;
}

/**
 * A text area as high as its text.
 * @param {{value: string} & Record<string, any>} props
 */
export function GrowingText({ value, ...textarea }) {
  const element = useRef(null);
  useEffect(() => {
    const { current } = element;
    current.style.height = "auto";
    current.style.height = `${Math.min(current.scrollHeight + 2, window.innerHeight * 0.7)}px`;
  }, [value]);
  return html`<textarea ref=${element} value=${value} ...${textarea}></textarea>`;
}

/**
 * A form that runs `action`, and shows what failed. After a failure, the first invalid input gets the focus.
 * @typedef {import("../loading.js").Action} Action
 * @param {{action: Action, submit: string, children?: unknown, class?: string, beside?: unknown, isQuiet?: boolean}} props
 */
export function Form({ action, submit, children, class: kind = "", beside, isQuiet = false }) {
  const element = useRef(null);
  const [isShownAtField, setShownAtField] = useState(false);
  useLayoutEffect(() => {
    const invalid = action.error && element.current.querySelector("[aria-invalid=true]");
    setShownAtField(Boolean(invalid));
    invalid?.focus();
  }, [action.error]);
  const send = (/** @type {Event} */ event) => {
    event.preventDefault();
    action.run();
  };
  return html`<form class="form ${kind}" ref=${element} onSubmit=${send} noValidate>
    ${children}
    ${action.error && !isShownAtField && html`<p class="form-error" role="alert">${messageOf(action)}</p>`}
    <div class="form-buttons">
      <button class="button ${isQuiet ? "" : "button-primary"}" type="submit" aria-disabled=${action.isBusy}>
        ${action.isBusy ? "One moment…" : submit}
      </button>
      ${beside}
    </div>
  </form>`;
}

/** @param {Action} action */
function messageOf({ error, fields }) {
  return Object.keys(fields).length > 0 && error.code === "validation_failed" ? Object.values(fields).join(" ") : error.message;
}
