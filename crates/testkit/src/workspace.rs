//! Where the sources and the built programs are.

use std::path::{Path, PathBuf};

/// The root of the workspace.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).expect("testkit lies two folders deep in the workspace").to_path_buf()
}

/// The program `name` built by the profile that built the running test.
///
/// # Panics
/// When it has not been built: cargo builds only the programs of the package under test.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of the running test");
    let profile = test.parent().and_then(Path::parent).expect("a test lies in <profile>/deps");
    let program = profile.join(name);
    assert!(program.is_file(), "{} is missing: cargo build --release --workspace --bins", program.display());
    program
}
