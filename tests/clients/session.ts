// A first session with the client that @hey-api/openapi-ts generates, against a running server. Prints what it saw.
import { castVote, createPost, listPosts, login, setVote, signUp } from "./generated/hey-api";
import { client } from "./generated/hey-api/client.gen";

declare const process: { argv: string[] };

async function main(): Promise<void> {
  client.setConfig({ baseUrl: process.argv[2], throwOnError: true });
  const email = "grace@example.com";
  const password = "correct horse battery";

  const account = (await signUp({ body: { email, password }, throwOnError: true })).data;
  const tokens = (await login({ body: { username: account.email, password }, throwOnError: true })).data;
  const bearer: string = tokens.access_token; // In strict mode this compiles only if the answer always has one.
  client.setConfig({ auth: (scheme) => (scheme.scheme === "bearer" ? bearer : undefined) });

  const body = { title: "Moths", content: "I found one" };
  const headers = { "Idempotency-Key": "one-moth" };
  const post = (await createPost({ body, headers, throwOnError: true })).data;
  const repeated = await createPost({ body, headers, throwOnError: true });

  const vote = (await castVote({ body: { post_id: post.id, vote_dir: 1 }, throwOnError: true })).data;
  const twice = await castVote({ body: { post_id: post.id, dir: 1 }, throwOnError: false });
  const state = (await setVote({ path: { id: post.id }, throwOnError: true })).data;
  const page = (await listPosts({ query: { limit: 1, sort: "top" }, throwOnError: true })).data;

  console.log(
    JSON.stringify({
      tokenType: tokens.token_type,
      isSamePost: repeated.data.id === post.id,
      replayed: repeated.response.headers.get("Idempotency-Replayed"),
      message: vote.message,
      votes: vote.votes,
      refused: [twice.response?.status, twice.error?.code, typeof twice.error?.detail],
      voted: state.voted,
      page: page.map((one) => [one.Post.title, one.Post.owner.email, one.votes, one.voted]),
    }),
  );
}

main();
