//! The table of the protocol's rules in ARCHITECTURE.md tells the truth.

use std::collections::BTreeSet;

use testkit::workspace;

#[test]
fn every_rule_of_the_protocol_names_tests_that_exist_and_that_name_it() {
    let read = |path: &str| {
        std::fs::read_to_string(workspace::root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let text = read("ARCHITECTURE.md");
    let (_, section) = text.split_once("## The protocol, rule by rule").expect("the section");
    let section = section.split("\n## ").next().expect("its text");
    let mut rules = BTreeSet::new();
    for row in section.lines().filter(|line| line.starts_with("| **")) {
        let rule = row.split("**").nth(1).expect("a name");
        let mut source = String::new();
        let mut tests = 0;
        let (_, tests_column) = row.trim_end_matches(" |").rsplit_once(" | ").expect("columns");
        for word in tests_column.split('`').skip(1).step_by(2) {
            if word.contains('/') {
                source = read(word);
                assert!(source.contains(&format!("Rule \"{rule}\"")), "{word} does not name the rule {rule:?}");
            } else {
                assert!(source.contains(&format!("fn {word}(")), "{rule}: there is no test {word}");
                tests += 1;
            }
        }
        assert!(tests > 0, "the rule {rule:?} has no test");
        rules.insert(rule);
    }
    assert_eq!(rules.len(), 7, "{rules:?}");
}
