/**
 * Requests to the API: errors for forms, pages of lists, repetition after a lost connection.
 *
 * The session is a cookie that scripts cannot read, so there is no token here and nothing to refresh.
 */

/** The shapes of openapi.json. docs/web-client.md says how to make this file for an editor. */
/** @typedef {import("./api-types.js").components["schemas"]} Schemas */

const page = document.documentElement.dataset;

/** Path prefix of the API, such as "" or "/v1". */
export const root = page.root ?? "";
export const publicReads = page.publicReads === "true";
export const registration = page.registration ?? "open";
const needsProofOfWork = page.proofOfWork === "true";

const MAX_TRIES = 3;
const MAX_WAIT_SECONDS = 5;

/** A refusal of the API, or a request that did not reach it (`status` 0, `code` "offline"). */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} code never changes, unlike the message
   * @param {string} message for people
   * @param {Record<string, string>} fields what to show beside which input
   * @param {number | null} retryAfterSeconds
   */
  constructor(status, code, message, fields = {}, retryAfterSeconds = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.fields = fields;
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/**
 * Codes that belong to one input of a form.
 * @type {Record<string, string>}
 */
const FIELD_OF_CODE = {
  email_taken: "email",
  username_taken: "username",
  wrong_password: "current_password",
  wrong_code: "code",
  invalid_invite: "invite",
  otp_required: "otp",
  unsupported_media: "file",
  picture_too_large: "file",
  picture_damaged: "file",
};

/**
 * Messages where the API's own speaks of requests instead of what the reader did.
 * @type {Record<string, string>}
 */
const WORDS_OF_CODE = {
  invalid_credentials: "This name and password do not match.",
  not_authenticated: "Please sign in first.",
  precondition_failed: "This was changed elsewhere in the meantime.",
  rate_limited: "That was a lot at once. Please wait a moment.",
  overloaded: "The server is busy. Please try again in a moment.",
  unavailable: "The server is not available at the moment. Please try again soon.",
  not_ready: "The server is starting. Please try again in a moment.",
  post_not_found: "This post does not exist, or you cannot see it.",
  comment_not_found: "This comment does not exist, or you cannot see it.",
  user_not_found: "There is no such user.",
  internal_error: "Something went wrong on the server. It has been logged.",
  body_too_large: "This is too large.",
};

let whenSessionEnds = () => {};

/**
 * Call `callback` when the API no longer accepts the session.
 * @param {() => void} callback
 */
export function onSessionEnd(callback) {
  whenSessionEnds = callback;
}

/**
 * Send a request, and return the response if it succeeded. Throws `ApiError`.
 *
 * A request that can be repeated without a second effect is sent again after a lost connection or 503.
 * @typedef {{method?: string, body?: unknown, form?: BodyInit, headers?: Record<string, string>, key?: string,
 *   signal?: AbortSignal}} Options `body` is sent as JSON; `key` is the Idempotency-Key
 * @param {string} path such as "/posts?sort=new"
 * @param {Options} [options]
 */
export async function request(path, { method = "GET", body, form, headers = {}, key, signal } = {}) {
  /** @type {RequestInit & {headers: Record<string, string>}} */
  const init = { method, headers: { ...headers }, signal, body: form };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers["Content-Type"] = "application/json";
  }
  if (key) init.headers["Idempotency-Key"] = key;
  const isRepeatable = method !== "POST" || key !== undefined;
  for (let tries = 1; ; tries++) {
    const mayRepeat = isRepeatable && tries < MAX_TRIES;
    let response;
    try {
      response = await fetch(root + path, init);
    } catch (error) {
      if (signal?.aborted) throw error;
      if (!mayRepeat) throw new ApiError(0, "offline", "The server cannot be reached. Are you offline?");
      await pause(tries * tries * 0.4);
      continue;
    }
    if (response.ok) return response;
    const error = await errorOf(response);
    if (response.status === 503 && mayRepeat) {
      await pause(Math.min(error.retryAfterSeconds ?? tries, MAX_WAIT_SECONDS));
      continue;
    }
    if (response.status === 401) whenSessionEnds();
    throw error;
  }
}

/**
 * Send a request, and return its JSON; undefined if the response has no body.
 * @param {string} path
 * @param {Options} [options]
 * @returns {Promise<any>}
 */
export async function json(path, options) {
  const response = await request(path, options);
  return response.status === 204 ? undefined : response.json();
}

/** @param {string} path @param {Options} [options] */
export const get = (path, options) => json(path, options);
/** @param {string} path @param {unknown} [body] @param {Options} [options] */
export const post = (path, body, options) => json(path, { method: "POST", body, ...options });
/** @param {string} path @param {unknown} [body] @param {Options} [options] */
export const put = (path, body, options) => json(path, { method: "PUT", body, ...options });
/** @param {string} path @param {unknown} [body] @param {Options} [options] */
export const patch = (path, body, options) => json(path, { method: "PATCH", body, ...options });
/** @param {string} path @param {Options} [options] */
export const remove = (path, options) => json(path, { method: "DELETE", ...options });

/** Whether the server takes requests. */
export const isReady = () => fetch(`${root}/readyz`).then(
  (response) => response.ok,
  () => false,
);

/** A new Idempotency-Key: one for each form that the user sends, also when it is sent again. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Read one page of a list.
 * @param {string} path
 * @param {Options} [options]
 * @returns {Promise<{items: any[], next: string | null}>} `next` is the path of the next page
 */
export async function list(path, options) {
  const response = await request(path, options);
  return { items: await response.json(), next: nextOf(response) };
}

/**
 * Read a list to its end.
 * @param {string} path
 * @param {Options} [options]
 */
export async function all(path, options) {
  const items = [];
  for (let next = /** @type {string | null} */ (path); next !== null; ) {
    const found = await list(next, options);
    items.push(...found.items);
    next = found.next;
  }
  return items;
}

/**
 * Sign in: the answer sets the cookie. Throws with the code `otp_required` where a second factor is due.
 * @param {string} username or the e-mail address
 * @param {string} password
 * @param {string} [otp] a code of the authenticator app, or a recovery code
 */
export function signIn(username, password, otp) {
  const form = new URLSearchParams({ username, password, ...(otp && { otp }) });
  return json("/login?cookie=true", { method: "POST", form });
}

/**
 * Create an account, with a proof of work where the server demands one.
 * @param {Schemas["UserIn"]} account
 * @param {string} key
 * @returns {Promise<Schemas["NewUser"]>}
 */
export async function signUp(account, key) {
  if (!needsProofOfWork) return post("/users", account, { key });
  return post("/users", { ...account, proof_of_work: await proofOfWork(await get("/sign-up-challenge")) }, { key });
}

/**
 * Upload a picture. `alt` says what it shows.
 * @param {File} file
 * @param {string} alt
 * @param {string} key
 * @returns {Promise<Schemas["MediaOut"]>}
 */
export function upload(file, alt, key) {
  const form = new FormData();
  form.append("file", file);
  form.append("alt", alt);
  return json("/media", { method: "POST", form, key });
}

/**
 * Address of a picture's file.
 * @param {string} path
 */
export const fileAddress = (path) => root + path;

/**
 * Vote, or take the vote back. `show` gets the expected state at once, then the counted one. Throws after undoing.
 * @typedef {{votes: number, voted: boolean}} VoteState
 * @param {string} path
 * @param {VoteState} state
 * @param {(state: VoteState) => void} show
 */
export async function toggleVote(path, state, show) {
  const before = { votes: state.votes, voted: state.voted };
  const voted = !state.voted;
  show({ voted, votes: state.votes + (voted ? 1 : -1) });
  try {
    const counted = await json(path, { method: voted ? "PUT" : "DELETE" });
    show({ voted: counted.voted, votes: counted.votes });
  } catch (error) {
    show(before);
    throw error;
  }
}

/** @param {Response} response */
function nextOf(response) {
  const found = /<([^>]*)>; rel="next"/.exec(response.headers.get("Link") ?? "");
  if (found === null) return null;
  const address = new URL(found[1], response.url);
  return address.pathname.slice(root.length) + address.search;
}

/** @param {Response} response */
async function errorOf(response) {
  // A proxy may answer in place of the API, and not in JSON.
  const problem = await response.json().catch(() => ({ code: "unknown", detail: `The server answered ${response.status}.` }));
  /** @type {Record<string, string>} */
  const fields = {};
  if (Array.isArray(problem.detail)) {
    for (const invalid of problem.detail) fields[String(invalid.loc[1])] = wordsOfInvalid(invalid);
  }
  let message = WORDS_OF_CODE[problem.code] ?? (Array.isArray(problem.detail) ? "Please check your input." : problem.detail);
  message = sentence(String(message));
  if (problem.code in FIELD_OF_CODE) fields[FIELD_OF_CODE[problem.code]] = message;
  const wait = response.headers.get("Retry-After");
  if (wait !== null && response.status === 429) message = `${message} (${wait} seconds)`;
  return new ApiError(response.status, problem.code, message, fields, wait === null ? null : Number(wait));
}

/**
 * What to do about an invalid value. The API's own words speak of strings.
 * @param {Schemas["ValidationError"]} invalid
 */
function wordsOfInvalid({ type, msg }) {
  const limit = Number(/\d+/.exec(msg)?.[0] ?? 0);
  if (type === "missing" || (type === "string_too_short" && limit <= 1)) return "Please fill this in.";
  if (type === "string_too_short") return `Use at least ${limit} characters.`;
  if (type === "string_too_long") return `Use at most ${limit} characters.`;
  if (type === "email") return "Enter an e-mail address, such as ada@example.com.";
  return sentence(msg);
}

/** @param {string} text */
function sentence(text) {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?)]$/.test(begun) ? begun : `${begun}.`;
}

/** @param {number} seconds */
const pause = (seconds) => new Promise((resume) => setTimeout(resume, seconds * 1000));

/** @param {string} hex */
const bytesOf = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (byte) => parseInt(byte, 16));

/**
 * Solve a sign-up challenge (docs/authentication.md): about 256 derivations, a second of work.
 * @param {{parameters: any, signature: string}} challenge
 */
async function proofOfWork(challenge) {
  const { nonce, salt, cost, keyLength, keyPrefix } = challenge.parameters;
  const nonceBytes = bytesOf(nonce);
  for (let counter = 0; ; counter++) {
    const password = new Uint8Array(nonceBytes.length + 4);
    password.set(nonceBytes);
    new DataView(password.buffer).setUint32(nonceBytes.length, counter);
    const material = await crypto.subtle.importKey("raw", password, "PBKDF2", false, ["deriveBits"]);
    const derivation = { name: "PBKDF2", hash: "SHA-256", salt: bytesOf(salt), iterations: cost };
    const bits = await crypto.subtle.deriveBits(derivation, material, keyLength * 8);
    const derivedKey = Array.from(new Uint8Array(bits), (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (derivedKey.startsWith(keyPrefix)) return btoa(JSON.stringify({ challenge, solution: { counter, derivedKey } }));
  }
}
