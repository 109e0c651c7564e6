//! The committed OpenAPI documents are those of the programs.

use std::fs;
use std::process::Command;

use crate::workspace;

/// Set to anything, the documents are written instead of compared.
const WRITE: &str = "WRITE_CONTRACTS";

/// Compares what `<service> --openapi` prints with `docs/contracts/openapi/<service>.json`.
///
/// # Panics
/// When they differ; the message tells how to write the document.
pub fn assert_openapi_is_committed(service: &str) {
    let output = Command::new(workspace::program(service)).arg("--openapi").env_clear().output().expect("a program");
    assert!(output.status.success(), "{service} --openapi: {}", String::from_utf8_lossy(&output.stderr));
    let committed = workspace::root().join("docs/contracts/openapi").join(format!("{service}.json"));
    if std::env::var_os(WRITE).is_some() {
        fs::create_dir_all(committed.parent().expect("a folder")).expect("a writable folder");
        fs::write(&committed, &output.stdout).expect("a writable file");
    }
    assert!(
        fs::read(&committed).is_ok_and(|committed| committed == output.stdout),
        "{} is not what {service} --openapi prints: run this test with {WRITE}=1 and review the change",
        committed.display()
    );
}
