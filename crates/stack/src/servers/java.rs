//! What the broker and Connect have in common: a small Java virtual machine.

use std::path::Path;

use crate::Error;
use crate::fetch::Files;
use crate::layout::write_atomically;
use crate::spawn::Program;

const LOGGING: &str = include_str!("../../log4j2.properties");

/// A Java program of the Kafka distribution with a heap of at most `heap_mb`; its configuration lies in `folder`.
pub(super) fn program(files: &Files, folder: &Path, log: &Path, heap_mb: u32, main_class: &str) -> Program {
    Program::new(java(), log)
        .argument(format!("-Xmx{heap_mb}m"))
        // One collector thread and no card tables for a large heap: half the memory of the default on two cores.
        .argument("-XX:+UseSerialGC")
        .argument("-XX:+ExitOnOutOfMemoryError")
        .argument("-XX:-UsePerfData")
        .argument("-Djava.awt.headless=true")
        .argument(format!("-Dlog4j2.configurationFile={}", logging(folder).display()))
        .argument("-cp")
        .argument(files.kafka_class_path())
        .argument(main_class)
}

/// `java` of `JAVA_HOME`, else of `PATH`.
pub fn java() -> std::path::PathBuf {
    let home = std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
    home.filter(|java| java.is_file()).unwrap_or_else(|| "java".into())
}

/// Writes the logging configuration into `folder`.
pub(super) fn write_logging(folder: &Path) -> Result<(), Error> {
    write_atomically(&logging(folder), LOGGING.as_bytes())
}

fn logging(folder: &Path) -> std::path::PathBuf {
    folder.join("log4j2.properties")
}
