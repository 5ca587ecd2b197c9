//! The documents point at code, and what they point at is there.

#[cfg(test)]
mod documents {
    use std::path::{Path, PathBuf};

    const DOCUMENTS: [&str; 6] = [
        "README.md",
        "SECURITY.md",
        "CHANGELOG.md",
        "keys/CEREMONY.md",
        "deploy/README.md",
        "src/connector/language.md",
    ];

    fn root() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
    }

    fn read(path: &str) -> String {
        std::fs::read_to_string(root().join(path)).unwrap_or_else(|_| panic!("{path} is missing"))
    }

    /// What stands between backticks.
    fn code_spans(line: &str) -> impl Iterator<Item = &str> {
        line.split('`').skip(1).step_by(2)
    }

    fn last_column(row: &str) -> &str {
        row.trim().trim_end_matches('|').rsplit('|').next().unwrap_or("").trim()
    }

    /// What the last column of a table row names and is not there: a file, or a test of the file named before it.
    fn missing_tests(row: &str) -> Vec<String> {
        let mut source = None;
        let mut missing = Vec::new();
        for span in code_spans(last_column(row)) {
            if Path::new(span).extension().is_some_and(|extension| extension == "rs") {
                source = std::fs::read_to_string(root().join(span)).ok();
                missing.extend(source.is_none().then(|| span.to_owned()));
            } else if !source.as_ref().is_some_and(|source| source.contains(&format!("fn {span}("))) {
                missing.push(span.to_owned());
            }
        }
        missing
    }

    fn requirement_rows(text: &str) -> Vec<&str> {
        let table = text.split("| Requirement |").nth(1).unwrap_or("");
        table.lines().skip(2).take_while(|line| line.starts_with('|')).collect()
    }

    #[test]
    fn every_requirement_names_tests_that_exist() {
        let text = read("SECURITY.md");
        let rows = requirement_rows(&text);
        assert!(rows.len() > 15, "{} rows", rows.len());
        for row in rows {
            assert_eq!(missing_tests(row), Vec::<String>::new(), "{row}");
            let says = last_column(row);
            assert!(says.contains(".rs`") || says.starts_with("none yet"), "no test, and not said so: {row}");
        }
    }

    #[test]
    fn a_test_that_is_not_there_is_seen() {
        let here = "tests/documents.rs";
        assert_eq!(
            missing_tests(&format!("| 1 | x | `{here}` `a_test_that_is_not_there_is_seen` |")),
            [""; 0]
        );
        assert_eq!(missing_tests(&format!("| 1 | x | `{here}` `no_such_test` |")), ["no_such_test"]);
        assert_eq!(missing_tests("| 1 | x | `src/nowhere.rs` |"), ["src/nowhere.rs"]);
    }

    fn sources(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries
            .flat_map(|path| {
                if path.is_dir() {
                    return sources(&path);
                }
                let is_rust = path.extension().is_some_and(|extension| extension == "rs");
                Vec::from_iter(is_rust.then(|| std::fs::read_to_string(&path).unwrap()))
            })
            .collect()
    }

    /// An invariant of the map is a sentence about the code; what holds it is a test.
    #[test]
    fn every_invariant_of_the_map_has_its_test() {
        let all: Vec<String> =
            ["src", "tests"].iter().flat_map(|folder| sources(&root().join(folder))).collect();
        let map = read("src/lib.rs");
        let invariants: Vec<&str> = map.lines().filter(|line| line.contains("Invariant:")).collect();
        assert!(invariants.len() > 5, "{}", invariants.len());
        for line in invariants {
            assert!(code_spans(line).count() > 0, "names no test: {line}");
            for test in code_spans(line) {
                assert!(
                    all.iter().any(|source| source.contains(&format!("fn {test}("))),
                    "{test} is no test"
                );
            }
        }
    }

    /// Targets of `[text](target)` that are files of ours.
    fn links(text: &str) -> Vec<String> {
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let ours = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
        ours.map(|target| target.split('#').next().unwrap_or("").to_owned()).collect()
    }

    #[test]
    fn every_link_leads_somewhere() {
        let mut followed = 0;
        for document in DOCUMENTS {
            let folder = root().join(document).parent().unwrap().to_owned();
            for target in links(&read(document)) {
                assert!(folder.join(&target).exists(), "{document} links to {target}");
                followed += 1;
            }
        }
        assert!(followed > 5, "{followed} links");
        assert_eq!(links("[a](b.md#c) [d](https://e) [f](#g)"), ["b.md"]);
    }

    #[test]
    fn the_readme_shows_the_two_commands() {
        let text = read("README.md");
        for command in ["cargo run --release -- demo", "tests/run"] {
            assert!(text.lines().any(|line| line.trim() == command), "{command}");
        }
    }
}
