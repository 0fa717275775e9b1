/** Name, text and picture of the profile. */

import { newKey, patch, put, remove, upload } from "../../api.js";
import { Avatar } from "../../components/avatar.js";
import { Field, Form } from "../../components/form.js";
import { PICTURE_TYPES } from "../../components/picture-field.js";
import { useAction } from "../../loading.js";
import { forgetPages } from "../../router.js";
import { account, say } from "../../state.js";
import { html, useState } from "../../vendor/preact.js";

/** @param {{me: import("../../api.js").Schemas["OwnAccount"]}} props */
export function Profile({ me }) {
  const [name, setName] = useState(me.display_name ?? "");
  const [username, setUsername] = useState(me.username);
  const [bio, setBio] = useState(me.bio ?? "");
  const action = useAction(async () => {
    const saved = await patch("/users/me", { display_name: name, bio, ...(username !== me.username && { username }) });
    account.set({ ...account.value, ...saved });
    forgetPages();
    say("Your profile is saved.");
  });
  const picture = useAction(async (file) => {
    const { avatar } = file
      ? await put("/users/me/avatar", { media_id: (await upload(file, "", newKey())).id })
      : await remove("/users/me/avatar");
    account.set({ ...me, avatar });
    forgetPages();
    say(file ? "Your picture is saved." : "Your picture is removed.");
  });
  const choose = (/** @type {any} */ event) => {
    const [file] = event.currentTarget.files;
    event.currentTarget.value = "";
    if (file) picture.run(file);
  };
  return html`<section aria-label="Picture">
      <div class="picture-row">
        <${Avatar} user=${me} size="large" />
        <label class="button file-button">${picture.isBusy ? "One moment…" : (me.avatar ? "Change picture" : "Choose a picture")}<input type="file" accept=${PICTURE_TYPES} onChange=${choose} /></label>
        ${me.avatar && html`<button type="button" class="button" aria-label="Remove the picture" onClick=${() => picture.run(null)}>Remove</button>`}
      </div>
      ${picture.error && html`<p class="form-error" role="alert">${picture.error.message}</p>`}
    </section>
    <section aria-label="Names and text">
      <${Form} action=${action} submit="Save">
        <${Field} label="Display name" hint="Shown above your username. May be empty." maxLength=${50} autocomplete="name" value=${name} onText=${setName} error=${action.fields.display_name} />
        <${Field} label="Username" hint="Links to your old name stop working when you change it." maxLength=${30} autocomplete="username" autocapitalize="none" value=${username} onText=${setUsername} error=${action.fields.username} />
        <${Field} label="About you" rows=${4} maxLength=${500} value=${bio} onText=${setBio} error=${action.fields.bio} />
      <//>
    </section>`;
}
