//! What is told when a program fails.

use super::*;
use crate::javy::{SyntaxError, diagnose};

fn place(thrown: &Thrown) -> (Option<&str>, Option<u32>, Option<u32>) {
    (thrown.file.as_deref(), thrown.line, thrown.column)
}

#[test]
fn a_thrown_error_names_the_place_of_its_making() {
    let source = "\
export default (input) => {
  return outer(input);
};

function outer(input) {
  const inner = () => {
    throw new RangeError('too ' + input);
  };
  return inner();
}
";
    let thrown = run(source, "\"much\"").thrown();
    assert_eq!(thrown.message, "RangeError: too much");
    assert_eq!(place(&thrown), (Some("index.js"), Some(7), Some(35)));
    insta::assert_snapshot!(thrown.stack, @r"
    at inner (index.js:7:35)
    at outer (index.js:9:10)
    at default (index.js:2:16)
    ");
}

#[test]
fn the_first_line_counts_its_columns_like_any_other() {
    let thrown = run("export default () => { throw Error('x') }", "0").thrown();
    assert_eq!(place(&thrown), (Some("index.js"), Some(1), Some(30)));
}

#[test]
fn a_call_of_nothing_is_placed_at_the_call() {
    let source = "\
export default (input) => {
  const a = 1;
  input.missing.deep();
};";
    let thrown = run(source, "{}").thrown();
    assert_eq!(
        thrown.message,
        "TypeError: cannot read property 'deep' of undefined"
    );
    assert_eq!(thrown.line, Some(3));
}

#[test]
fn an_error_of_an_asynchronous_function_is_thrown_too() {
    let source = "\
const fail = async () => {
  await null;
  throw new Error('late');
};
export default async () => {
  await fail();
};";
    let ran = run(source, "0");
    assert_eq!(ran.log, "");
    let thrown = ran.thrown();
    assert_eq!(thrown.message, "Error: late");
    assert_eq!(place(&thrown), (Some("index.js"), Some(3), Some(13)));
}

#[test]
fn an_error_of_the_top_level_is_thrown_too() {
    let thrown = run("\nnull.x;\nexport default () => 1", "0").thrown();
    assert_eq!(thrown.line, Some(2));
    let thrown = run(
        "await Promise.reject(new Error('early')); export default () => 1",
        "0",
    );
    assert_eq!(thrown.thrown().message, "Error: early");
}

#[test]
fn the_place_is_the_developers_even_when_a_builtin_throws() {
    let thrown = run("export default (x) =>\n  JSON.parse(x)", "\"{\"").thrown();
    assert_eq!(thrown.line, Some(2));
    let thrown = run(
        "export default (x) =>\n  [3].map((y) => {\n  throw new Error(y) })",
        "0",
    );
    assert_eq!(thrown.thrown().line, Some(3));
}

#[test]
fn errors_of_a_class_of_their_own_keep_their_name() {
    let source = "
        class NoStock extends Error { get name() { return 'NoStock' } }
        export default () => { throw new NoStock('none left') }";
    assert_eq!(run(source, "0").thrown().message, "NoStock: none left");
}

#[test]
fn values_that_are_no_errors_can_be_thrown() {
    for (value, message) in [
        ("'words'", "words"),
        ("42", "42"),
        ("null", "null"),
        ("undefined", "undefined"),
        ("{ code: 7 }", "{\"code\":7}"),
        ("Symbol('s')", "Symbol(s)"),
        ("10n", "10"),
        ("new Error()", "Error"),
    ] {
        let thrown = run(&format!("export default () => {{ throw {value} }}"), "0").thrown();
        assert_eq!(thrown.message, message, "{value}");
    }
}

#[test]
fn an_error_that_defends_itself_is_still_told() {
    let source = "
        export default () => {
            const e = new Error('x');
            Object.defineProperty(e, 'stack', { get() { throw 1 } });
            Object.defineProperty(e, 'message', { get() { throw 2 } });
            throw e;
        }";
    assert_eq!(run(source, "0").thrown().message, "Error");
    let source = "export default () => { throw new Error('long '.repeat(1e6)) }";
    assert!(run(source, "0").thrown().message.len() < 20_000);
}

#[test]
fn a_script_throws_like_a_function() {
    let thrown = run("\n\n  throw new Error('in a script')", "").thrown();
    assert_eq!(place(&thrown), (Some("index.js"), Some(3), Some(13)));
}

#[test]
fn a_promise_that_never_settles_is_told() {
    for source in [
        "export default () => new Promise(() => {})",
        "export default async () => { await new Promise(() => {}) }",
        "await new Promise(() => {}); export default () => 1",
        "await new Promise(() => {})",
    ] {
        assert_eq!(
            run(source, "0").outcome.unwrap(),
            RunOutcome::Unsettled,
            "{source}"
        );
    }
}

#[test]
fn answers_without_a_json_form_are_told() {
    for (value, why) in [
        ("10n", "BigInt"),
        ("{ a: [1n] }", "BigInt"),
        ("() => 1", "the function returned a function"),
        ("Symbol('s')", "the function returned a symbol"),
        ("(() => { const a = {}; a.a = a; return a })()", "circular"),
        ("{ toJSON() { throw new Error('will not') } }", "will not"),
    ] {
        match run(&format!("export default () => ({value})"), "0")
            .outcome
            .unwrap()
        {
            RunOutcome::BadOutput { message } => assert!(message.contains(why), "{message}"),
            other => panic!("{value}: {other:?}"),
        }
    }
}

#[test]
fn input_that_is_not_json_never_reaches_the_program() {
    let source = "console.log('ran'); export default (x) => x";
    for input in [
        &b""[..],
        b"{",
        b"{'a':1}",
        b"[1,]",
        b"undefined",
        b"1 2",
        b"\"\xff\"",
        b"\xef\xbb\xbf1",
        b"nul\0",
        b"1\0",
        b"01",
        b"\"\n\"",
        b"NaN",
        b"// x\n1",
    ] {
        let ran = run_compiled(&compile(source), input, PIPE_BYTES);
        assert_eq!(ran.log, "", "{input:?}");
        match ran.outcome.unwrap() {
            RunOutcome::BadInput { message } => assert!(!message.is_empty()),
            other => panic!("{input:?}: {other:?}"),
        }
    }
}

#[track_caller]
fn syntax_error(source: &str) -> SyntaxError {
    match compile_as("index.js", source.as_bytes()) {
        Err(CompileError::Syntax(error)) => error,
        other => panic!("no syntax error but {other:?}"),
    }
}

fn rendered(source: &str) -> String {
    diagnose::render(source, &syntax_error(source))
}

#[test]
fn a_syntax_error_shows_its_line() {
    insta::assert_snapshot!(rendered("export default (input) => {\n  const x = (1 + ;\n}"), @r"
    index.js:2:18: unexpected token in expression: ';'
      2 |   const x = (1 + ;
        |                  ^
    ");
    insta::assert_snapshot!(rendered("export default (input) => {\n\treturn [1, 2;\n}"), @r"
    index.js:2:14: Unexpected token ';'
      2 |     return [1, 2;
        |                 ^
    ");
    insta::assert_snapshot!(rendered("let a = 1;\nlet ü = 'ä', a = 2;\n"), @r"
    index.js:2:14: invalid redefinition of global identifier
      2 | let ü = 'ä', a = 2;
        |              ^
    ");
    insta::assert_snapshot!(rendered("export default () => {"), @r"
    index.js:1:23: unexpected token in expression: end of file
      1 | export default () => {
        |                       ^
    ");
    insta::assert_snapshot!(rendered("const s = 'never closed\n"), @r"
    index.js:1:11: unexpected end of string
      1 | const s = 'never closed
        |           ^
    ");
    insta::assert_snapshot!(rendered("/(/"), @r"
    index.js:1:3: expecting ')'
      1 | /(/
        |   ^
    ");
    insta::assert_snapshot!(rendered("var x = 08n;"), @r"
    index.js:1:9: Octal literals are not allowed in strict mode
      1 | var x = 08n;
        |         ^
    ");
    insta::assert_snapshot!(rendered("const x;"), @r"
    index.js:1:7: missing initializer for variable
      1 | const x;
        |       ^
    ");
}

#[test]
fn an_import_is_an_error_with_a_way_out() {
    insta::assert_snapshot!(rendered("const a = 1;\nimport _ from 'lodash';\n"), @r"
    index.js:2:15: cannot import 'lodash': a function is one file, so bundle what it imports
      2 | import _ from 'lodash';
        |               ^
    ");
}

#[test]
fn source_that_is_no_text_is_a_syntax_error() {
    match compile_as("index.js", b"let a = 1;\nlet b = '\xff'") {
        Err(CompileError::Syntax(error)) => {
            assert_eq!((error.line, error.column), (2, 10));
            assert_eq!(error.message, "the source is not UTF-8 from here on");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn errors_name_the_file_as_the_developer_does() {
    let compiled = compile_as("src/déjà vu (1).js", b"export default () => { x }").unwrap();
    let thrown = run_compiled(&compiled, b"0", 9).thrown();
    assert_eq!(thrown.message, "ReferenceError: x is not defined");
    assert_eq!(thrown.file.as_deref(), Some("src/déjà vu (1).js"));
}
