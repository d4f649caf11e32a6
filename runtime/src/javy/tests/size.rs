//! How large artifacts are: at most the source and a kilobyte, with every line still known.

use super::*;
use crate::javy::pack::unpack;
use crate::javy::{emit, engine_hash};

/// A source of at least `bytes` bytes, like an application's: handlers, classes, loops, text,
/// regular expressions and comments, no two alike.
fn application(bytes: usize, minified: bool) -> String {
    let mut source = String::new();
    for i in 0.. {
        if source.len() >= bytes {
            break;
        }
        let word = |k: usize| WORDS[(i * 7 + k * 13 + i / 5) % WORDS.len()];
        let part = PARTS[i % PARTS.len()]
            .replace("$A", &format!("{}{}{i}", word(1), capital(word(2))))
            .replace("$B", word(3))
            .replace("$C", word(4))
            .replace("$N", &(i * 37 % 1000).to_string());
        source.push_str(&if minified { minify(&part) } else { part });
    }
    source.push_str("export default (input) => ({ hello: input.name });\n");
    source
}

fn capital(word: &str) -> String {
    word[..1].to_uppercase() + &word[1..]
}

fn minify(part: &str) -> String {
    let lines = part.lines().map(str::trim);
    let mut text: String = lines.filter(|line| !line.starts_with("//")).collect();
    for mark in [
        "=>", "===", "{", "}", "(", ")", ",", ";", ":", "?", "+", "=", "<", ">", "&&",
    ] {
        text = text
            .replace(&format!(" {mark}"), mark)
            .replace(&format!("{mark} "), mark);
    }
    for (long, short) in [("result", "r"), ("entry", "e"), ("request", "q"), ("index", "i")] {
        text = text.replace(long, short);
    }
    text
}

const WORDS: [&str; 16] = [
    "order",
    "price",
    "basket",
    "user",
    "stock",
    "parcel",
    "tariff",
    "region",
    "invoice",
    "coupon",
    "ledger",
    "session",
    "delivery",
    "refund",
    "vendor",
    "warehouse",
];

const PARTS: [&str; 5] = [
    "
// Collects the $B of each $C, and skips what is not for sale.
function $A(request, limit = $N) {
  const result = [];
  for (const [index, entry] of request.$Bs.entries()) {
    if (!entry || entry.$C === undefined) continue;
    if (index >= limit) {
      throw new RangeError(`too many $Bs: ${index} of ${limit}`);
    }
    result.push({ ...entry, $C: entry.$C * $N, label: String(entry.name).trim() });
  }
  return result;
}
",
    "
class $A {
  #$B = new Map();

  constructor(request) {
    this.request = request;
    this.created = Date.now();
  }

  // Adds one, and says how many there are.
  add(entry) {
    const found = this.#$B.get(entry.id) ?? { count: 0, $C: null };
    this.#$B.set(entry.id, { count: found.count + 1, $C: entry.$C });
    return this.#$B.size;
  }

  get total() {
    return [...this.#$B.values()].reduce((sum, entry) => sum + entry.count, $N);
  }
}
",
    "
const $A = {
  pattern: /^(?<$B>[a-z]+)-(?<$C>\\d{2,})$/u,
  title: 'The $B of the $C, number $N',
  retry: { times: $N, delay: 2.5, codes: [408, 429, 500, $N] },
  parse(text) {
    const match = this.pattern.exec(text);
    return match ? { $B: match.groups.$B, $C: Number(match.groups.$C) } : null;
  },
};
",
    "
// Answers with the $B, or with what is wrong with it.
async function $A(request) {
  try {
    const result = await request.load('$B', { $C: $N });
    if (result.status !== 200) return { error: `no $B (${result.status})`, $C: null };
    return result.body.filter((entry) => entry.$C > $N).map(({ id, $C }) => ({ id, $C }));
  } catch (error) {
    console.error('$B failed:', error.message);
    return { error: error.message, $C: $N };
  }
}
",
    "
const $A = (entry, index) => {
  switch (entry.kind) {
    case '$B':
      return entry.$C + index;
    case '$C':
      return entry.$B?.length ?? $N;
    default:
      return index % 2 === 0 ? -1 : $N;
  }
};
",
];

const HELLO: &str = "\
// Greets whoever is named in the input.
export default (input, ctx) => {
  const name = input?.name ?? 'world';
  return { hello: name, revision: ctx.revision, length: name.length };
};
";

#[track_caller]
fn check(source: &str) {
    let compiled = compile(source);
    let wasm = emit(&compiled.bytecode, &engine_hash());
    let plain = unpack(&compiled.bytecode).unwrap().into_owned();
    println!(
        "source {}, bytecode {}, packed {}, artifact {}",
        source.len(),
        plain.len(),
        compiled.bytecode.len(),
        wasm.len()
    );
    assert!(
        wasm.len() <= source.len() + 1024,
        "{} of {}",
        wasm.len(),
        source.len()
    );
    for bytecode in [compiled.bytecode, plain] {
        let ran = run_compiled(&Compiled { bytecode, ..compiled }, br#"{"name":"Ada"}"#, 999);
        assert!(ran.answer().starts_with(r#"{"hello":"Ada""#));
    }
}

#[test]
fn an_artifact_is_at_most_its_source_and_a_kilobyte() {
    check(HELLO);
    check(&minify(HELLO));
    for bytes in [1_000, 10_000, 100_000] {
        check(&application(bytes, false));
        check(&application(bytes, true));
    }
}

#[test]
fn lines_are_known_in_the_largest_of_them() {
    let mut source = application(100_000, false);
    let line = source.matches('\n').count() as u32 + 2;
    source.push_str("export const later = () => {\n  throw new Error('far down');\n};\nlater();\n");
    let thrown = run(&source, "0").thrown();
    assert_eq!((thrown.line, thrown.column), (Some(line), Some(13)));
}
