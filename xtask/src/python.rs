//! Programs from PyPI, in a virtual environment of their own below the target directory.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::shell;

/// Python with an S3 server for several servers to share.
pub(crate) fn with_s3() -> anyhow::Result<PathBuf> {
    let requirements = shell::root().join("tests/shared/requirements.txt");
    Ok(programs("shared", &requirements)?.join("python"))
}

/// The directory of the programs that these requirements install, once installed.
pub(crate) fn programs(name: &str, requirements: &Path) -> anyhow::Result<PathBuf> {
    shell::need("python3", &["python3", "python3-venv"])?;
    let home = shell::target_dir().join("python").join(name);
    let programs = home.join("bin");
    // A copy of what was asked for tells whether it is still what is there.
    let done = home.join("installed.txt");
    let wanted = std::fs::read(requirements)?;
    if std::fs::read(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(programs);
    }
    // Debian's Python comes without what fills an environment.
    let fills = Command::new("python3").args(["-c", "import ensurepip"]).stderr(Stdio::null()).status();
    if !fills.is_ok_and(|status| status.success()) {
        shell::install(&["python3-venv"])?;
    }
    shell::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    shell::run(Command::new(programs.join("python")).args(pip).arg(requirements))?;
    std::fs::write(done, wanted)?;
    Ok(programs)
}
