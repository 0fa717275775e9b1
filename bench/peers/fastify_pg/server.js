// Peer in JavaScript: Fastify and node-postgres, one prepared statement per request, without batches.
//
// The statements are those of bench/statements.py, which the asyncpg peer uses, too. They check session and account,
// and build the JSON in PostgreSQL. node-postgres prepares each once per connection. Tokens are verified once and then
// cached, as in the other peers. The cluster module spreads connections over the workers.
//
// Possible improvement: share round trips among concurrent requests, as this application does.

import cluster from "node:cluster";
import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import Fastify from "fastify";
import pg from "pg";

const CONNECTIONS = 10; // As in asyncpg_raw.py.
const MAX_REMEMBERED = 10_000;
const CURSOR_SIGNATURE_BYTES = 12;
const { DATABASE_URL, PORT, SECRET_KEY, STATEMENTS, WORKERS } = process.env;

if (cluster.isPrimary) {
  for (let number = 0; number < Number(WORKERS); number++) cluster.fork();
} else {
  await serve();
}

async function serve() {
  const { settings, statements } = JSON.parse(readFileSync(STATEMENTS, "utf8"));
  const options = Object.entries(settings).map(([name, value]) => `-c ${name}=${value}`).join(" ");
  const pool = new pg.Pool({ connectionString: DATABASE_URL, max: CONNECTIONS, min: CONNECTIONS, options });
  const app = Fastify({ logger: false });
  const integer = { type: "integer" };
  const query = {
    type: "object",
    properties: {
      limit: { ...integer, minimum: 1, maximum: 100, default: 10 },
      skip: { ...integer, minimum: 0, maximum: 10_000, default: 0 },
      sort: { enum: ["new", "top", "hot"], default: "new" },
      search: { type: "string" },
      owner_id: integer,
      tag: { type: "string" },
      cursor: { type: "string" },
    },
  };
  const wantedVote = {
    type: "object",
    required: ["post_id", "vote_dir"],
    properties: { post_id: integer, vote_dir: { enum: [0, 1] } },
  };
  const counted = { type: "object", properties: { message: { type: "string" }, votes: integer } };

  async function respond(request, reply, name, limit, values) {
    const caller = verified(request);
    if (caller === undefined) return unauthorized(reply);
    const text = statements[name].replaceAll("{limit}", limit);
    const { rows } = await pool.query({ name: `${name} ${limit}`, text, values: [caller.session, caller.user, ...values] });
    if (rows.length === 0) return unauthorized(reply);
    if (rows[0].body === null) return fail(reply, 404, "the post was not found");
    return reply.type("application/json").send(rows[0].body);
  }

  app.get("/readyz", () => ({ status: "ok" }));

  app.get("/posts", { schema: { querystring: query } }, (request, reply) => {
    const { limit, skip, sort, search, owner_id: owner, tag, cursor } = request.query;
    if (search) return respond(request, reply, "search", limit, [search]);
    if (owner !== undefined) return respond(request, reply, "owner", limit, [owner, skip]);
    if (tag !== undefined) return respond(request, reply, "tag", limit, [tag, skip]);
    if (cursor !== undefined) {
      const position = positionOf(cursor, sort);
      if (position === undefined) return fail(reply, 422, "malformed cursor");
      return respond(request, reply, `${sort}_after`, limit, position);
    }
    if (sort === "new" && skip === 0) return respond(request, reply, "new", limit, []);
    return respond(request, reply, `${sort}_skip`, limit, [skip]);
  });

  app.get("/posts/:id", { schema: { params: { type: "object", properties: { id: integer } } } }, (request, reply) =>
    respond(request, reply, "post", 1, [request.params.id]),
  );

  app.post("/vote", { schema: { body: wantedVote, response: { 201: counted } } }, async (request, reply) => {
    const caller = verified(request);
    if (caller === undefined) return unauthorized(reply);
    const { post_id: post, vote_dir: direction } = request.body;
    const name = direction === 1 ? "cast" : "retract";
    const values = [caller.session, caller.user, post];
    const { rows: [row] } = await pool.query({ name, text: statements[name], values });
    if (!row.is_alive) return unauthorized(reply);
    if (row.votes === null) return fail(reply, 404, "the post does not exist");
    if (!row.changed) {
      return direction === 1 ? fail(reply, 409, "the vote exists") : fail(reply, 404, "Vote does not exist");
    }
    const done = direction === 1 ? "added" : "deleted";
    return reply.code(201).send({ message: `successfully ${done} vote`, votes: Number(row.votes) });
  });

  await app.listen({ host: "127.0.0.1", port: Number(PORT) });
}

function fail(reply, status, detail) {
  return reply.code(status).send({ detail });
}

function unauthorized(reply) {
  reply.header("WWW-Authenticate", "Bearer");
  return fail(reply, 401, "Could not validate credentials");
}

const remembered = new Map();

function verified(request) {
  const { authorization } = request.headers;
  if (authorization === undefined || !authorization.startsWith("Bearer ")) return undefined;
  const text = authorization.slice("Bearer ".length);
  let caller = remembered.get(text);
  if (caller === undefined) {
    caller = decoded(text);
    if (caller === undefined) return undefined;
    if (remembered.size >= MAX_REMEMBERED) remembered.clear();
    remembered.set(text, caller);
  }
  return caller.expires > Date.now() / 1000 ? caller : undefined;
}

function decoded(text) {
  const [header, claims, signature, ...rest] = text.split(".");
  if (signature === undefined || rest.length > 0) return undefined;
  if (!isEqual(Buffer.from(signature), Buffer.from(signatureOf(`${header}.${claims}`).toString("base64url")))) {
    return undefined;
  }
  const { alg, kid } = JSON.parse(Buffer.from(header, "base64url"));
  if (alg !== "HS256" || kid !== keyId()) return undefined;
  const { user_id: user, sid: session, exp: expires } = JSON.parse(Buffer.from(claims, "base64url"));
  return Number.isInteger(user) && Number.isInteger(session) ? { user, session, expires } : undefined;
}

// Sort value and id of a cursor that the application signed (app/schemas/cursor.py).
function positionOf(cursor, sort) {
  const signed = Buffer.from(cursor, "base64url");
  const payload = signed.subarray(CURSOR_SIGNATURE_BYTES);
  const signature = signatureOf(Buffer.concat([Buffer.from("cursor:"), payload])).subarray(0, CURSOR_SIGNATURE_BYTES);
  if (!isEqual(signed.subarray(0, CURSOR_SIGNATURE_BYTES), signature)) return undefined;
  const [madeFor, isBackward, value, id] = JSON.parse(payload);
  return madeFor === sort && !isBackward ? [value, id] : undefined;
}

function signatureOf(text) {
  return createHmac("sha256", SECRET_KEY).update(text).digest();
}

function keyId() {
  return createHash("sha256").update(`key id:${SECRET_KEY}`).digest("hex").slice(0, 12);
}

function isEqual(given, expected) {
  return given.length === expected.length && timingSafeEqual(given, expected);
}
