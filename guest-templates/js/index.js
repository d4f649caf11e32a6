// Called once per request, in a fresh instance. `input` is the caller's JSON; what you return
// becomes the answer. `ctx` has `function`, `revision`, `request_id` and `deadline_ms`.
// The function may be async. `console.log` goes to its log.
export default function (input, ctx) {
  const name = input?.name ?? "world";
  return { hello: name, revision: ctx.revision };
}
