/** For moderators: open reports, resolved ones, and the log. */

import { get, post } from "../api.js";
import { BanDays, banEnd } from "../components/ban-dialog.js";
import { Dialog } from "../components/dialog.js";
import { EndlessList } from "../components/endless-list.js";
import { Field, Form } from "../components/form.js";
import { MemberPage } from "../components/member-page.js";
import { Empty } from "../components/states.js";
import { Tabs } from "../components/tabs.js";
import { Time } from "../components/time.js";
import { useAction, useList, useTitle } from "../loading.js";
import { href, userPath } from "../router.js";
import { isModerator, say, useAccount } from "../state.js";
import { html, useEffect, useState } from "../vendor/preact.js";

const TABS = [
  ["open", "Open reports", "/moderation"],
  ["resolved", "Resolved", "/moderation/resolved"],
  ["log", "Log", "/moderation/log"],
];

/** @param {{here: import("../router.js").Place, tab?: string}} props */
export default function Moderation({ here, tab = "open" }) {
  const me = useAccount();
  useTitle("Moderation");
  if (me && !isModerator(me)) return html`<${Empty} isPage title="This page is for moderators"><p><a href=${href("/")}>Go to the front page</a>.</p><//>`;
  return html`<${MemberPage} here=${here}>
    <div class="narrow">
      <div class="page-head"><h1 tabindex="-1">Moderation</h1></div>
      <${Tabs} label="Moderation" tabs=${TABS.map(([name, text, path]) => ({ path, text, isCurrent: name === tab }))} />
      ${tab === "log" ? html`<${Log} />` : html`<${Reports} key=${tab} status=${tab === "resolved" ? "resolved" : "open"} />`}
    </div>
  <//>`;
}

/** @param {{status: "open" | "resolved"}} props */
function Reports({ status }) {
  const list = useList(`/reports?status=${status}&limit=20`);
  const resolved = (/** @type {import("../api.js").Schemas["ReportOut"]} */ report) => list.set(list.items.filter((/** @type {import("../api.js").Schemas["ReportOut"]} */ item) => !isSameTarget(item, report)));
  return html`<${EndlessList}
    list=${list}
    label="Reports"
    empty=${html`<${Empty} title=${status === "open" ? "Nothing to do" : "No resolved reports"}><p>${status === "open" ? "There are no open reports." : ""}</p><//>`}
    render=${(/** @type {import("../api.js").Schemas["ReportOut"]} */ report) => html`<${Report} key=${report.id} report=${report} resolved=${resolved} />`}
  />`;
}

/** @param {import("../api.js").Schemas["ReportOut"]} one @param {import("../api.js").Schemas["ReportOut"]} other */
const isSameTarget = (one, other) =>
  one.post_id === other.post_id && one.comment_id === other.comment_id && one.user_id === other.user_id;

/** @param {{report: import("../api.js").Schemas["ReportOut"], resolved: (report: any) => void}} props */
function Report({ report, resolved }) {
  const [action, setAction] = useState(null);
  const target = useTarget(report);
  const me = useAccount();
  const mayDismiss = me && (me.role === "admin" || me.id !== target.authorId);
  return html`<li class="post-row">
    <p class="byline">
      ${report.reporter ? html`<a href=${href(userPath(report.reporter))}>${report.reporter.username}</a>` : "A deleted account"}
      reports ${target.what} <span aria-hidden="true">·</span> <${Time} value=${report.created_at} />
    </p>
    <p>${report.reason}</p>
    <div class="quote">${target.title && html`<strong>${target.title}</strong>`}${target.text}${target.path && html` <a href=${href(target.path)}>Open</a>`}</div>
    ${report.resolved_at
      ? html`<p class="hint">${report.resolver?.username ?? "A deleted account"}: ${report.action}${report.note && html`, “${report.note}”`}, <${Time} value=${report.resolved_at} /></p>`
      : html`<div class="form-buttons">
          ${mayDismiss && html`<button type="button" class="button button-small" onClick=${() => setAction("dismiss")}>Dismiss</button>`}
          ${!report.user_id && html`<button type="button" class="button button-small" onClick=${() => setAction("remove")}>Remove</button>`}
          <button type="button" class="button button-small button-danger" onClick=${() => setAction("ban")}>Ban ${report.user_id ? "user" : "author"}</button>
        </div>`}
    ${action && html`<${Resolve} report=${report} kind=${action} done=${resolved} close=${() => setAction(null)} />`}
  </li>`;
}

const QUOTED_CHARACTERS = 300;

/** @param {string} text */
const beginning = (text) => (text.length > QUOTED_CHARACTERS ? `${text.slice(0, QUOTED_CHARACTERS)}…` : text);

/**
 * What a report is about. Reports have ids only.
 * @param {import("../api.js").Schemas["ReportOut"]} report
 */
function useTarget({ post_id: postId, comment_id: commentId, user_id: userId }) {
  const [target, setTarget] = useState({ what: postId ? "a post" : commentId ? "a comment" : "a user", title: "", text: "…", path: "", authorId: 0 });
  useEffect(() => {
    const gone = () => setTarget((/** @type {any} */ before) => ({ ...before, text: "It is deleted." }));
    if (postId) {
      get(`/posts/${postId}`).then(
        ({ Post: post }) => setTarget({ what: `a post of ${post.owner.username}`, title: post.title, text: beginning(post.content), path: `/posts/${postId}`, authorId: post.owner_id }),
        gone,
      );
    } else if (commentId) {
      get(`/comments/${commentId}`).then(
        (comment) => setTarget({ what: `a comment of ${comment.author?.username ?? "a deleted account"}`, title: "", text: beginning(comment.content), path: `/posts/${comment.post_id}#comment-${commentId}`, authorId: comment.author?.id ?? 0 }),
        gone,
      );
    } else {
      get(`/users/${userId}`).then(
        (user) => setTarget({ what: "a user", title: `${user.display_name ?? ""} @${user.username}`.trim(), text: user.bio ?? "", path: userPath(user), authorId: user.id }),
        gone,
      );
    }
  }, [postId, commentId, userId]);
  return target;
}

/** @type {Record<import("../api.js").Schemas["ModerationAction"], string>} */
const ACTIONS = {
  remove: "removed",
  restore: "restored",
  delete: "deleted",
  lock: "locked",
  unlock: "unlocked",
  ban: "banned",
  unban: "ended the ban of",
  dismiss: "dismissed a report of",
};
const TITLES = { dismiss: "Dismiss this report?", remove: "Remove the content?", ban: "Ban the author?" };

/** @param {{report: import("../api.js").Schemas["ReportOut"], kind: "dismiss" | "remove" | "ban", done: (report: import("../api.js").Schemas["ReportOut"]) => void, close: () => void}} props */
function Resolve({ report, kind, done, close }) {
  const [note, setNote] = useState("");
  const [days, setDays] = useState(7);
  const action = useAction(async () => {
    await post(`/reports/${report.id}/resolve`, { action: kind, note: note || null, ...(kind === "ban" && { until: banEnd(days) }) });
    say("The report is resolved.");
    close();
    done(report);
  });
  return html`<${Dialog} title=${TITLES[kind]} close=${close}>
    <${Form} action=${action} submit=${{ dismiss: "Dismiss", remove: "Remove", ban: "Ban" }[kind]}>
      <${Field} label=${kind === "dismiss" ? "Note (optional)" : "Reason"} hint=${kind === "dismiss" ? "For other moderators." : "The author sees it."} maxLength=${500} value=${note} onText=${setNote} error=${action.fields.note} />
      ${kind === "ban" && html`<${BanDays} days=${days} setDays=${setDays} />`}
    <//>
  <//>`;
}

function Log() {
  const list = useList("/moderation-log?limit=50");
  /** @param {import("../api.js").Schemas["ModerationEntry"]} entry */
  const row = (entry) => html`<li key=${entry.id} class="row">
    <span class="row-text">
      <b>${entry.moderator?.username ?? "The operator"}</b> ${ACTIONS[entry.action] ?? entry.action}
      ${entry.post_id && html` <a href=${href(`/posts/${entry.post_id}`)}>post ${entry.post_id}</a>`}
      ${entry.comment_id && ` comment ${entry.comment_id}`}${entry.user_id && ` user ${entry.user_id}`}
      ${entry.reason && html`<br />“${entry.reason}”`}<br />
      <span class="hint"><${Time} value=${entry.created_at} /></span>
    </span>
  </li>`;
  return html`<${EndlessList} list=${list} label="Log" empty=${html`<${Empty} title="The log is empty" />`} render=${row} />`;
}
