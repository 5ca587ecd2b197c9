//! The names that a source file uses: a small reader of Rust, enough for paths.

/// A word, a path separator, or one character of anything else; with its line.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Separator,
    Other(char),
}

/// The module that `src/path` is, as segments from `crate` on.
pub(crate) fn module_of(path: &str) -> Vec<String> {
    let path = path.trim_end_matches(".rs");
    let inner = path.split('/').filter(|part| !matches!(*part, "mod" | "lib" | "main"));
    std::iter::once("crate").chain(inner).map(str::to_owned).collect()
}

/// Every path in `source` with its line: each leaf of each `use`, each path of two segments or more, each macro call (`name!`).
pub(crate) fn names_in(source: &str, module: &[String]) -> Vec<(usize, String)> {
    let tokens = without_tests(&tokens_of(source));
    let mut names = Vec::new();
    let mut at = 0;
    while let Some((line, token)) = tokens.get(at) {
        match token {
            Token::Word(word) if word == "use" && !is(&tokens, at + 1, '<') => {
                at += 1;
                let mut leaves = Vec::new();
                use_tree(&tokens, &mut at, &[], &mut leaves);
                names.extend(leaves.into_iter().map(|leaf| (*line, resolve(&leaf, module))));
            }
            Token::Word(_) => {
                let path = path_at(&tokens, &mut at);
                let called = is(&tokens, at, '!') && !is(&tokens, at + 1, '=');
                if called {
                    let name = path.last().cloned().unwrap_or_default();
                    names.push((*line, format!("{name}!")));
                }
                if path.len() > 1 {
                    names.push((*line, resolve(&path, module)));
                }
            }
            Token::Separator | Token::Other(_) => at += 1,
        }
    }
    names
}

fn is(tokens: &[(usize, Token)], at: usize, other: char) -> bool {
    tokens.get(at).is_some_and(|(_, token)| *token == Token::Other(other))
}

/// `one::two::three`, as far as it goes.
fn path_at(tokens: &[(usize, Token)], at: &mut usize) -> Vec<String> {
    let mut path = Vec::new();
    while let Some((_, Token::Word(word))) = tokens.get(*at) {
        path.push(word.clone());
        *at += 1;
        let goes_on = matches!(tokens.get(*at), Some((_, Token::Separator)))
            && matches!(tokens.get(*at + 1), Some((_, Token::Word(_))));
        if !goes_on {
            break;
        }
        *at += 1;
    }
    path
}

/// One tree of a `use`, from its first token to the one after it.
fn use_tree(tokens: &[(usize, Token)], at: &mut usize, outer: &[String], leaves: &mut Vec<Vec<String>>) {
    let mut path = outer.to_vec();
    while let Some((_, token)) = tokens.get(*at) {
        match token {
            Token::Word(word) if word == "as" => *at += 2,
            Token::Word(word) => {
                path.push(word.clone());
                *at += 1;
            }
            Token::Separator => *at += 1,
            Token::Other('*') => {
                path.push("*".to_owned());
                *at += 1;
            }
            Token::Other('{') => {
                *at += 1;
                while !is(tokens, *at, '}') && *at < tokens.len() {
                    use_tree(tokens, at, &path, leaves);
                    if is(tokens, *at, ',') {
                        *at += 1;
                    }
                }
                *at += 1;
                return;
            }
            Token::Other(_) => break,
        }
    }
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    leaves.push(path);
    // Whatever ended it is the caller's, but a stray token must not stop the reader.
    if !(is(tokens, *at, ',') || is(tokens, *at, '}')) {
        *at += 1;
    }
}

/// The path from `crate`, where it begins with `self` or `super`.
fn resolve(path: &[String], module: &[String]) -> String {
    let mut from: Vec<String> = Vec::new();
    for segment in path {
        match segment.as_str() {
            "self" if from.is_empty() => from = module.to_vec(),
            "super" => {
                if from.is_empty() {
                    from = module.to_vec();
                }
                from.pop();
            }
            _ => from.push(segment.clone()),
        }
    }
    from.join("::")
}

/// Leaves out `#[cfg(test)] mod … { … }`.
fn without_tests(tokens: &[(usize, Token)]) -> Vec<(usize, Token)> {
    let head = ["#", "[", "cfg", "(", "test", ")", "]", "mod"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let starts = head.iter().enumerate().all(|(offset, text)| {
            tokens.get(at + offset).is_some_and(|(_, token)| match token {
                Token::Word(word) => word == text,
                Token::Other(other) => other.to_string() == *text,
                Token::Separator => false,
            })
        });
        if starts && is(tokens, at + head.len() + 1, '{') {
            at = after_braces(tokens, at + head.len() + 1);
        } else {
            kept.extend(tokens.get(at).cloned());
            at += 1;
        }
    }
    kept
}

fn after_braces(tokens: &[(usize, Token)], open: usize) -> usize {
    let mut depth = 0usize;
    for at in open..tokens.len() {
        if is(tokens, at, '{') {
            depth += 1;
        } else if is(tokens, at, '}') {
            depth -= 1;
            if depth == 0 {
                return at + 1;
            }
        }
    }
    tokens.len()
}

/// Words and marks, without comments, strings, characters and lifetimes.
fn tokens_of(source: &str) -> Vec<(usize, Token)> {
    let text: Vec<char> = source.chars().collect();
    let look = |at: usize| text.get(at).copied().unwrap_or('\0');
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < text.len() {
        let from = at;
        match (look(at), look(at + 1)) {
            ('/', '/') => at = position(&text, at, |c| c == '\n'),
            ('/', '*') => at = after_comment(&text, at),
            ('"', _) => at = after_string(&text, at),
            ('\'', _) => at = after_quote(&text, at),
            (':', ':') => {
                tokens.push((line, Token::Separator));
                at += 2;
            }
            (c, _) if is_word(c) => {
                at = position(&text, at, |c| !is_word(c));
                let word: String = text[from..at].iter().collect();
                let hashes = position(&text, at, |c| c != '#') - at;
                let is_string = matches!(word.as_str(), "r" | "br" | "cr") && look(at + hashes) == '"';
                if is_string {
                    at = after_raw_string(&text, at + hashes + 1, hashes);
                } else if word == "r" && hashes == 1 {
                    at += 1;
                } else {
                    tokens.push((line, Token::Word(word)));
                }
            }
            (c, _) => {
                if !c.is_whitespace() {
                    tokens.push((line, Token::Other(c)));
                }
                at += 1;
            }
        }
        line += text[from..at.min(text.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

/// The first place from `at` on that `stop` likes, or the end.
fn position(text: &[char], at: usize, stop: impl Fn(char) -> bool) -> usize {
    text[at..].iter().position(|c| stop(*c)).map_or(text.len(), |found| at + found)
}

fn after_comment(text: &[char], open: usize) -> usize {
    let (mut at, mut depth) = (open, 0usize);
    while at < text.len() {
        match (text[at], text.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    break;
                }
            }
            _ => at += 1,
        }
    }
    at
}

fn after_string(text: &[char], open: usize) -> usize {
    let mut at = open + 1;
    while at < text.len() && text[at] != '"' {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

fn after_raw_string(text: &[char], body: usize, hashes: usize) -> usize {
    let mut at = body;
    loop {
        at = position(text, at, |c| c == '"') + 1;
        let closed = text.iter().skip(at).take(hashes).filter(|c| **c == '#').count() == hashes;
        if closed || at >= text.len() {
            return at + hashes;
        }
    }
}

/// A character, or the tick of a lifetime with its name.
fn after_quote(text: &[char], open: usize) -> usize {
    if text.get(open + 1) == Some(&'\\') {
        return position(text, open + 3, |c| c == '\'') + 1;
    }
    if text.get(open + 2) == Some(&'\'') {
        return open + 3;
    }
    position(text, open + 1, |c| !(c.is_alphanumeric() || c == '_'))
}

#[test]
fn names_are_read_as_the_compiler_reads_them() {
    let module = module_of("edge/http/tokens.rs");
    let read = |source: &str| names_in(source, &module).into_iter().map(|(_, name)| name).collect::<Vec<_>>();
    assert_eq!(read("use a::{b, c::{d as e, f::*}, self};"), ["a::b", "a::c::d", "a::c::f::*", "a"]);
    assert_eq!(read("use super::super::store;"), ["crate::edge::store"]);
    assert_eq!(
        read("fn f() { self::g(); let x = 'x'; let y: &'a str = b::c(\"d::e\"); }"),
        ["crate::edge::http::tokens::g", "b::c"]
    );
    assert_eq!(
        read("x != y; log::info!(\"p::q\"); r#try::it(); '\\''; a::b"),
        ["info!", "log::info", "try::it", "a::b"]
    );
    assert_eq!(
        names_in("\n\nuse a::b;\n/* \n */ c::d", &module),
        [(3, "a::b".to_owned()), (5, "c::d".to_owned())]
    );
    assert_eq!(module_of("edge/mod.rs"), ["crate", "edge"]);
}
