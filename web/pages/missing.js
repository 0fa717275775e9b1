/** An address without a page. */

import { Empty } from "../components/states.js";
import { useTitle } from "../loading.js";
import { href } from "../router.js";
import { html } from "../vendor/preact.js";

export default function Missing() {
  useTitle("Not found");
  return html`<${Empty} isPage title="There is no such page">
    <p><a href=${href("/")}>Go to the front page</a>.</p>
  <//>`;
}
