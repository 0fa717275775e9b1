/** Light, dark, or as the system says. Kept on this device. */

import { html, useState } from "../../vendor/preact.js";

const THEMES = [
  ["", "As the system says"],
  ["light", "Light"],
  ["dark", "Dark"],
];

export function Appearance() {
  const [theme, setTheme] = useState(document.documentElement.dataset.theme ?? "");
  const choose = (value) => {
    setTheme(value);
    if (value) {
      document.documentElement.dataset.theme = value;
      localStorage.setItem("theme", value);
    } else {
      delete document.documentElement.dataset.theme;
      localStorage.removeItem("theme");
    }
  };
  return html`<section>
    <fieldset class="choices">
      <legend class="label">Theme</legend>
      ${THEMES.map(
        ([value, text]) => html`<label class="check" key=${value}>
          <input type="radio" name="theme" checked=${theme === value} onChange=${() => choose(value)} />${text}
        </label>`,
      )}
    </fieldset>
  </section>`;
}
