/** The tags of a post, with completion of known ones. */

import { get } from "../api.js";
import { useSettled } from "../loading.js";
import { html, useEffect, useId, useState } from "../vendor/preact.js";
import { Icon } from "./icon.js";

const MAX_TAGS = 5;

export function TagField({ tags, change, error }) {
  const id = useId();
  const [text, setText] = useState("");
  const [options, setOptions] = useState([]);
  const [chosen, setChosen] = useState(-1);
  const settled = useSettled(text.trim().replace(/^#/, ""), 150);
  useEffect(() => {
    setChosen(-1);
    if (!/^[\p{L}\p{N}_-]{1,30}$/u.test(settled)) return setOptions([]);
    const leaving = new AbortController();
    get(`/tags?prefix=${encodeURIComponent(settled)}&limit=6`, { signal: leaving.signal }).then(
      (found) => setOptions(found.filter(({ name }) => !tags.includes(name))),
      () => {},
    );
    return () => leaving.abort();
  }, [settled]);
  const add = (name) => {
    const clean = name.trim().replace(/^#/, "").normalize("NFKC").toLowerCase();
    if (clean && !tags.includes(clean) && tags.length < MAX_TAGS) change([...tags, clean]);
    setText("");
    setOptions([]);
  };
  const drop = (name) => change(tags.filter((tag) => tag !== name));
  const isOpen = options.length > 0 && text !== "";
  const onKeyDown = (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      if (!isOpen) return;
      event.preventDefault();
      const step = event.key === "ArrowDown" ? 1 : -1;
      setChosen((chosen + step + options.length) % options.length);
    } else if ((event.key === "Enter" || event.key === "," || event.key === " ") && (text || event.key !== "Enter")) {
      event.preventDefault();
      add(chosen >= 0 && isOpen ? options[chosen].name : text);
    } else if (event.key === "Escape" && isOpen) {
      setOptions([]);
    } else if (event.key === "Backspace" && !text && tags.length > 0) {
      drop(tags.at(-1));
    }
  };
  return html`<div class="field">
    <label for=${id}>Tags</label>
    ${tags.length > 0 &&
    html`<ul class="chosen" aria-label="Chosen tags">
      ${tags.map(
        (name) => html`<li key=${name}>#${name}<button type="button" aria-label=${`Remove ${name}`} onClick=${() => drop(name)}><${Icon} name="close" /></button></li>`,
      )}
    </ul>`}
    <div class="completion">
      <input
        id=${id}
        type="text"
        role="combobox"
        aria-autocomplete="list"
        aria-expanded=${isOpen ? "true" : "false"}
        aria-controls="${id}-options"
        aria-activedescendant=${isOpen && chosen >= 0 ? `${id}-option-${chosen}` : undefined}
        aria-describedby=${error ? `${id}-hint ${id}-error` : `${id}-hint`}
        aria-invalid=${error ? "true" : undefined}
        autocomplete="off"
        autocapitalize="none"
        enterkeyhint="done"
        maxlength="40"
        disabled=${tags.length >= MAX_TAGS}
        value=${text}
        onInput=${(event) => setText(event.currentTarget.value)}
        onKeyDown=${onKeyDown}
        onBlur=${() => text && add(text)}
      />
      <ul class="options" role="listbox" id="${id}-options" aria-label="Known tags" hidden=${!isOpen}>
        ${options.map(
          ({ name, posts }, index) => html`<li
            key=${name}
            id="${id}-option-${index}"
            role="option"
            aria-selected=${index === chosen ? "true" : "false"}
            onPointerDown=${(event) => {
              event.preventDefault();
              add(name);
            }}
          >
            #${name}<span>${posts}</span>
          </li>`,
        )}
      </ul>
    </div>
    <p class="hint" id="${id}-hint">${tags.length >= MAX_TAGS ? "Five is the maximum." : "Up to five. Enter or a space adds one."}</p>
    ${error && html`<p class="field-error" id="${id}-error">${error}</p>`}
  </div>`;
}
