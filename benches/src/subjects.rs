//! Who is measured: ours, with either unwinder, and the peers. A peer is built on demand in a workspace of its own, because pprof's
//! unwinders exclude one another and pprof and pyroscope export the same unmangled handler.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A profiler with a subject binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profiler {
    Spanflame,
    /// With its frame-pointer unwinder, in a build that has frame pointers throughout.
    SpanflameFramePointers,
    PprofDefault,
    PprofFramePointer,
    PprofFramehop,
    Pyroscope,
}

impl Profiler {
    /// Ours first.
    pub(crate) const ALL: [Self; 5] =
        [Self::Spanflame, Self::Pyroscope, Self::PprofDefault, Self::PprofFramePointer, Self::PprofFramehop];

    /// The environment that its process needs.
    pub(crate) fn environment(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::SpanflameFramePointers => &[("SPANFLAME_UNWINDER", "frame-pointers")],
            _ => &[],
        }
    }

    /// Name and version as it stands in a report; the manifests pin these versions.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Spanflame => concat!("spanflame ", env!("CARGO_PKG_VERSION")),
            Self::SpanflameFramePointers => {
                concat!("spanflame ", env!("CARGO_PKG_VERSION"), " frame pointers")
            }
            Self::PprofDefault => "pprof 0.15.0",
            Self::PprofFramePointer => "pprof 0.15.0 frame-pointer",
            Self::PprofFramehop => "pprof 0.15.0 framehop-unwinder",
            Self::Pyroscope => "pyroscope 2.1.5",
        }
    }

    fn folder(self) -> Option<&'static str> {
        match self {
            Self::Spanflame | Self::SpanflameFramePointers => None,
            Self::PprofDefault => Some("pprof-default"),
            Self::PprofFramePointer => Some("pprof-frame-pointer"),
            Self::PprofFramehop => Some("pprof-framehop"),
            Self::Pyroscope => Some("pyroscope"),
        }
    }
}

/// Where the subjects' binaries are.
pub(crate) struct Subjects {
    ours: PathBuf,
}

impl Subjects {
    /// `ours` is the path of our own subject's binary.
    pub(crate) fn new(ours: &Path) -> Self {
        Self { ours: ours.to_owned() }
    }

    /// The profiler's binary, built if need be.
    pub(crate) fn binary(&self, profiler: Profiler) -> Result<PathBuf> {
        if profiler == Profiler::SpanflameFramePointers {
            return self.with_frame_pointers();
        }
        let Some(folder) = profiler.folder() else { return Ok(self.ours.clone()) };
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(folder);
        let target = self.target()?.join("peers");
        eprintln!("building {} (the first time takes a minute)", profiler.title());
        let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(&workspace)
            .args(["build", "--release", "--locked", "--quiet", "--target-dir"])
            .arg(&target)
            // Flags from outside would replace those that the peer's own configuration asks for.
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .status()
            .context("cannot run cargo")?;
        if !status.success() {
            bail!("building {} in {} failed", profiler.title(), workspace.display());
        }
        Ok(target.join("release").join(format!("peer-{folder}")))
    }

    /// The library that a storm loads, built if need be.
    pub(crate) fn plugin(&self) -> Result<PathBuf> {
        let target = self.target()?;
        let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["build", "--release", "--quiet", "--package", "spanflame-soak-plugin", "--target-dir"])
            .arg(target)
            .status()
            .context("cannot run cargo")?;
        if !status.success() {
            bail!("building the library to load failed");
        }
        Ok(target.join("release").join("libspanflame_soak_plugin.so"))
    }

    /// Our own subject again, built with frame pointers into a target directory of its own.
    fn with_frame_pointers(&self) -> Result<PathBuf> {
        let target = self.target()?.join("frame-pointers");
        eprintln!("building {} (the first time takes a minute)", Profiler::SpanflameFramePointers.title());
        let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["build", "--release", "--locked", "--quiet", "--bin", "spanflame-subject", "--target-dir"])
            .arg(&target)
            .env("RUSTFLAGS", "-C force-frame-pointers=yes")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .status()
            .context("cannot run cargo")?;
        if !status.success() {
            bail!("building our own subject with frame pointers failed");
        }
        Ok(target.join("release").join("spanflame-subject"))
    }

    /// …/target of …/target/<profile>/<our binary>
    fn target(&self) -> Result<&Path> {
        self.ours.ancestors().nth(2).context("our own target directory")
    }

    /// Binaries of several profilers.
    pub(crate) fn binaries(&self, profilers: &[Profiler]) -> Result<Vec<(Profiler, PathBuf)>> {
        profilers.iter().map(|&profiler| Ok((profiler, self.binary(profiler)?))).collect()
    }
}
