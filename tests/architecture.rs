//! The arrows of the design, held by reading `src/`: which folder may never name what, and why.
//!
//! A name is a path as the compiler would see it: groups of a `use` are taken apart, `self` and `super` are resolved, comments,
//! strings and test modules are left out. Every arrow is shown both ways: the tree keeps it, and a snippet that breaks it is seen.

#[cfg(test)]
#[path = "architecture/names.rs"]
mod names;

#[cfg(test)]
mod arrows {
    use std::path::{Path, PathBuf};

    use crate::names::{module_of, names_in};

    /// One folder (or file) of `src/`, and what nothing in it may name.
    struct Arrow {
        from: &'static str,
        never: &'static [&'static str],
        because: &'static str,
    }

    const PRINTS: [&str; 6] = ["tracing", "println!", "print!", "eprintln!", "eprint!", "dbg!"];
    const ROLES: [&str; 5] =
        ["crate::edge", "crate::keeper", "crate::forwarder", "crate::supervisor", "crate::tools"];

    const ARROWS: &[Arrow] = &[
        Arrow {
            from: "edge",
            never: &["crate::keeper", "crate::forwarder", "crate::supervisor", "crate::tools", "aes_gcm"],
            because: "the edge holds no keys and opens no card; it asks the keeper through crate::edge::keeper",
        },
        Arrow {
            from: "edge/store",
            never: &[
                "crate::edge::http",
                "crate::edge::keeper",
                "crate::wire",
                "axum",
                "hyper",
                "ring::aead",
            ],
            because: "a store sees sealed rows and tokens only",
        },
        Arrow {
            from: "edge/audit",
            never: &["crate::edge::http", "crate::edge::keeper", "axum", "hyper", "rusqlite"],
            because: "the log sees events and tokens only, and is verified where there is no service",
        },
        Arrow {
            from: "edge/vault",
            never: &["axum", "hyper", "rusqlite"],
            because: "the verbs on tokens know neither HTTP nor SQL",
        },
        Arrow {
            from: "edge/charge",
            never: &["axum", "hyper", "rusqlite"],
            because: "the state machine of a charge knows neither HTTP nor SQL",
        },
        Arrow {
            from: "keeper",
            never: &[
                "crate::edge",
                "crate::forwarder",
                "crate::supervisor",
                "crate::tools",
                "crate::config",
                "axum",
                "hyper",
                "hyper_util",
                "http_body_util",
                "tower",
                "tokio",
                "rustls",
                "tokio_rustls",
                "rusqlite",
                "toml",
                "std::fs",
                "std::net",
                "std::env",
                "std::process::Command",
                "rustix::fs",
                "rustix::net",
            ],
            because: "the keeper has no network, no files and no SQL, only its own pairs",
        },
        Arrow {
            from: "keeper/cleartext",
            never: &PRINTS,
            because: "where digits are in the clear nothing is logged or printed",
        },
        Arrow {
            from: "keeper/keys",
            never: &PRINTS,
            because: "where keys are in the clear nothing is logged or printed",
        },
        Arrow {
            from: "forwarder",
            never: &[
                "crate::edge",
                "crate::keeper",
                "crate::supervisor",
                "crate::tools",
                "rusqlite",
                "aes_gcm",
            ],
            because: "the forwarder holds no keys and no rows",
        },
        Arrow {
            from: "unsealer",
            never: &[
                "crate::edge",
                "crate::supervisor",
                "crate::tools",
                "crate::config",
                "axum",
                "rusqlite",
                "toml",
                "std::env",
                "std::process::Command",
            ],
            because: "the unsealer reaches one root provider, with what it was handed",
        },
        Arrow {
            from: "unsealer",
            never: &PRINTS,
            because: "where the KEK is in the clear nothing is logged or printed",
        },
        Arrow {
            from: "connector",
            never: &[
                "std::fs",
                "std::net",
                "std::time::SystemTime",
                "std::time::Instant",
                "tokio",
                "hyper",
                "axum",
                "rustix",
            ],
            because: "the connector language is pure: no file, no network, no clock",
        },
        Arrow {
            from: "connector",
            never: &ROLES,
            because: "the connector language knows no role, and not the sandbox",
        },
        Arrow {
            from: "forwarding",
            never: &[
                "std::fs",
                "std::net",
                "std::time::SystemTime",
                "std::time::Instant",
                "tokio",
                "hyper",
                "axum",
                "rustix",
            ],
            because: "the language of forwards is pure: no file, no network, no clock",
        },
        Arrow { from: "forwarding", never: &ROLES, because: "the language of forwards knows no role" },
        Arrow {
            from: "forwarding",
            never: &PRINTS,
            because: "filled requests are in the clear: nothing is printed",
        },
        Arrow {
            from: "edge/forward",
            never: &["axum", "hyper", "rusqlite"],
            because: "the order of a forward knows neither HTTP nor SQL",
        },
        Arrow {
            from: "edge/webhooks",
            never: &["axum", "hyper", "rusqlite"],
            because: "the delivery of webhooks knows neither HTTP nor SQL",
        },
        Arrow { from: "card", never: &ROLES, because: "what anyone may know of a card knows no role" },
        Arrow { from: "wire", never: &ROLES, because: "the doors between roles know no role" },
        Arrow {
            from: "person",
            never: &ROLES,
            because: "what persons sign is checked in more than one role",
        },
        Arrow { from: "attest", never: &ROLES, because: "what two roles both compute belongs to neither" },
        Arrow {
            from: "tools/sandbox",
            never: &[
                "crate::connector",
                "crate::edge",
                "crate::keeper",
                "crate::forwarder",
                "crate::supervisor",
                "crate::wire",
            ],
            because: "the sandbox shares no code with what it tests",
        },
    ];

    /// The most lines that a file may have.
    const FILE_LINES_MAX: usize = 800;

    fn root() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
    }

    fn rust_files(folder: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(rust_files(&path));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
        found.sort();
        found
    }

    /// Files of `src/` that are not tests, by their path below it.
    fn sources() -> Vec<(String, String)> {
        let src = root().join("src");
        let below = |path: &Path| path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
        let is_test = |path: &str| path.split('/').any(|part| part == "tests" || part == "tests.rs");
        rust_files(&src)
            .into_iter()
            .map(|path| (below(&path), std::fs::read_to_string(&path).unwrap()))
            .filter(|(path, _)| !is_test(path))
            .collect()
    }

    fn is_under(path: &str, folder: &str) -> bool {
        path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
    }

    /// Whether `name` is `forbidden`, something in it, or a glob that brings it in.
    fn reaches(name: &str, forbidden: &str) -> bool {
        let within = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        within(name, forbidden) || name.strip_suffix("::*").is_some_and(|outer| within(forbidden, outer))
    }

    fn breaches(arrow: &Arrow, path: &str, source: &str) -> Vec<String> {
        names_in(source, &module_of(path))
            .into_iter()
            .filter(|(_, name)| arrow.never.iter().any(|forbidden| reaches(name, forbidden)))
            .map(|(line, name)| format!("src/{path}:{line} names {name}: {}", arrow.because))
            .collect()
    }

    #[test]
    fn every_arrow_holds() {
        let sources = sources();
        let breaches: Vec<String> = ARROWS
            .iter()
            .flat_map(|arrow| {
                let inside = sources.iter().filter(|(path, _)| is_under(path, arrow.from));
                inside.flat_map(|(path, source)| breaches(arrow, path, source))
            })
            .collect();
        assert!(breaches.is_empty(), "{}", breaches.join("\n"));
    }

    #[test]
    fn every_arrow_starts_somewhere() {
        let sources = sources();
        // Where charges are built, their folder comes with them.
        let idle = ARROWS.iter().filter(|arrow| arrow.from != "edge/charge");
        for arrow in idle {
            assert!(sources.iter().any(|(path, _)| is_under(path, arrow.from)), "no file in {}", arrow.from);
        }
    }

    #[test]
    fn every_arrow_sees_each_way_of_breaking_it() {
        for arrow in ARROWS {
            for forbidden in arrow.never {
                let path = format!("{}/somewhere.rs", arrow.from);
                for snippet in ways_to_name(forbidden) {
                    assert!(
                        !breaches(arrow, &path, &snippet).is_empty(),
                        "{}: not seen: {snippet}",
                        arrow.from
                    );
                }
            }
        }
    }

    /// Snippets that name `forbidden`, each in another way.
    fn ways_to_name(forbidden: &str) -> Vec<String> {
        if forbidden.ends_with('!') {
            return ["", "std::"].map(|from| format!("fn f() {{ {from}{forbidden}(\"x\"); }}")).to_vec();
        }
        let mut ways = vec![
            format!("use {forbidden};"),
            format!("pub(crate) use {forbidden}::{{Thing, other as another}};"),
            format!("fn f() -> {forbidden}::Thing {{ x }}"),
            format!("fn f() {{ let lifetime: &'static str = {forbidden}::thing::<u8>(); }}"),
            format!("const C: char = '\"'; fn f() {{ {forbidden}::thing!() }}"),
        ];
        if let Some((outer, last)) = forbidden.rsplit_once("::") {
            ways.push(format!("use {outer}::{{one, two::{{three}}, {last}::Thing}};"));
            ways.push(format!("use {outer}::*;"));
        }
        ways
    }

    #[test]
    fn what_only_looks_like_a_breach_is_none() {
        let edge = &ARROWS[0];
        for harmless in [
            "use crate::edge::keeper::Keeper;",
            "use super::keeper::Keeper;",
            "use crate::wire::keeper::{Seal, Sealed};",
            "//! The client of crate::keeper::service.",
            "/* use crate::keeper; /* nested */ use aes_gcm; */",
            "const S: &str = \"use crate::keeper;\";",
            "const S: &str = r#\"crate::keeper::run(\"\")\"#;",
            "#[cfg(test)]\nmod tests { use crate::keeper::Pan; fn f() { { aes_gcm::f() } } }",
            "use crate::keepers::Thing;",
        ] {
            assert_eq!(breaches(edge, "edge/vault.rs", harmless), Vec::<String>::new(), "{harmless}");
        }
        assert_eq!(breaches(edge, "edge/vault.rs", "mod tests { }\nuse super::super::keeper::Pan;").len(), 1);
        assert_eq!(breaches(edge, "edge/mod.rs", "use super::keeper::Pan;").len(), 1);
        let after = "#[cfg(test)]\nmod tests { fn f() {} }\nuse crate::keeper::Pan;";
        assert_eq!(breaches(edge, "edge/vault.rs", after).len(), 1);
    }

    #[test]
    fn no_file_is_longer_than_a_reader_bears() {
        let folders = ["src", "tests"].map(|folder| root().join(folder));
        for path in folders.iter().flat_map(|folder| rust_files(folder)) {
            let lines = std::fs::read_to_string(&path).unwrap().lines().count();
            assert!(lines <= FILE_LINES_MAX, "{} has {lines} lines", path.display());
        }
    }

    /// An exception is `#[expect(…, reason = "…")]`, which ends with its cause; `#[allow]` outlives it. The lint table refuses
    /// it in what is compiled; this also reads what is not compiled here.
    #[test]
    fn nothing_is_allowed_for_good() {
        let folders = ["src", "tests"].map(|folder| root().join(folder));
        for path in folders.iter().flat_map(|folder| rust_files(folder)) {
            let source = std::fs::read_to_string(&path).unwrap();
            assert!(!allows(&source), "{} has an allow attribute", path.display());
        }
        assert!(allows(&["#", "[allow(dead_code)]"].concat()));
        assert!(allows(&["#", "![allow(dead_code)]"].concat()));
        assert!(!allows("#[expect(dead_code, reason = \"…\")]"));
    }

    fn allows(source: &str) -> bool {
        ["#", "#!"].iter().any(|start| source.contains(&format!("{start}[{}(", "allow")))
    }
}
