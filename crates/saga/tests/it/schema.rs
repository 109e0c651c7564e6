//! The schema editors use is the one the parser checks with.

use std::path::{Path, PathBuf};

use saga::{Definition, json_schema};

fn sagas() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sagas")
}

#[test]
fn the_committed_schema_is_the_one_of_the_types() {
    let file = sagas().join("saga.schema.json");
    let generated = format!("{}\n", serde_json::to_string_pretty(json_schema()).expect("a JSON value"));
    if std::env::var_os("WRITE_CONTRACTS").is_some() {
        std::fs::write(&file, &generated).expect("sagas/ can be written");
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(committed == generated, "sagas/saga.schema.json has drifted: run with WRITE_CONTRACTS=1 and commit it");
}

#[test]
fn every_committed_saga_passes_its_checks_and_names_its_schema() {
    let files = std::fs::read_dir(sagas()).expect("sagas/ is there").map(|entry| entry.expect("readable").path());
    let sagas: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|ext| ext == "yaml")).collect();
    assert!(!sagas.is_empty());
    for path in sagas {
        let yaml = std::fs::read_to_string(&path).expect("readable");
        assert!(yaml.starts_with("# yaml-language-server: $schema=saga.schema.json\n"), "{}", path.display());
        let name = path.file_stem().expect("a file").to_string_lossy().into_owned();
        let definition = Definition::parse(&yaml, &path.to_string_lossy());
        let definition = definition.unwrap_or_else(|found| panic!("{}", found[0]));
        assert_eq!(definition.name(), name, "a saga is in the file of its name");
    }
}
