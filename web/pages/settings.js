/** Settings: one section at a time, each in a file of its own. */

import { MemberPage } from "../components/member-page.js";
import { Empty } from "../components/states.js";
import { Tabs } from "../components/tabs.js";
import { useTitle } from "../loading.js";
import { useAccount } from "../state.js";
import { html } from "../vendor/preact.js";
import { Account } from "./settings/account.js";
import { Appearance } from "./settings/appearance.js";
import { Blocks } from "./settings/blocks.js";
import { Data } from "./settings/data.js";
import { Invites } from "./settings/invites.js";
import { Keys } from "./settings/keys.js";
import { Profile } from "./settings/profile.js";
import { Security } from "./settings/security.js";
import { Sessions } from "./settings/sessions.js";

/** @type {Array<[string, string, (props: {me: any}) => unknown]>} */
const SECTIONS = [
  ["profile", "Profile", Profile],
  ["account", "E-mail and password", Account],
  ["security", "Two-factor sign-in", Security],
  ["sessions", "Sessions", Sessions],
  ["keys", "API keys", Keys],
  ["blocks", "Blocked users", Blocks],
  ["invites", "Invites", Invites],
  ["appearance", "Appearance", Appearance],
  ["data", "Export and deletion", Data],
];

export default function Settings({ here, section = "profile" }) {
  const me = useAccount();
  const found = SECTIONS.find(([name]) => name === section);
  useTitle(found ? found[1] : "Settings");
  return html`<${MemberPage} here=${here}>
    <div class="settings">
      <${Tabs}
        label="Settings"
        class="settings-nav"
        tabs=${SECTIONS.map(([name, text]) => ({ path: `/settings/${name}`, text, isCurrent: name === section }))}
      />
      <div class="settings-body">
        ${found ? html`<h1 tabindex="-1">${found[1]}</h1><${found[2]} key=${section} me=${me} />` : html`<${Empty} isPage title="There is no such section" />`}
      </div>
    </div>
  <//>`;
}
