//! A clock for each service that can be stepped while the service runs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use stack::supervisor::{MOST_INSTANCES, SERVICES};

const SOURCE: &str = include_str!("clock_step.c");

/// The library that services load first, and the offsets that it reads.
pub struct Shim {
    library: PathBuf,
    offsets: PathBuf,
}

impl Shim {
    /// Compiles the library into `folder`. Fails where there is no C compiler or no glibc.
    pub fn build(folder: &Path) -> anyhow::Result<Self> {
        let (source, library) = (folder.join("clock_step.c"), folder.join("clock_step.so"));
        std::fs::write(&source, SOURCE)?;
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(&source).arg("-ldl");
        let output = compile.output().context("starting cc")?;
        anyhow::ensure!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
        let shim = Self { library, offsets: folder.join("clocks") };
        std::fs::create_dir_all(&shim.offsets)?;
        for service in SERVICES {
            for instance in 1..=MOST_INSTANCES {
                shim.write(&format!("{}-{instance}", service.name), 0)?;
            }
        }
        Ok(shim)
    }

    /// What the services need in their environment.
    pub fn environment(&self) -> [(String, String); 2] {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        [("LD_PRELOAD".into(), text(&self.library)), ("CLOCK_OFFSETS".into(), text(&self.offsets))]
    }

    /// Sets the clock of an instance ahead by so much.
    pub fn set(&self, instance: &str, ahead: Duration) -> anyhow::Result<()> {
        self.write(instance, i64::try_from(ahead.as_nanos()).unwrap_or(i64::MAX))
    }

    fn write(&self, instance: &str, nanos: i64) -> anyhow::Result<()> {
        use std::io::Write as _;
        let path = self.offsets.join(instance);
        // In place: the mapping is of this file, not of one that gets its name.
        let mut file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
        file.write_all(&nanos.to_ne_bytes()).with_context(|| path.display().to_string())
    }
}
