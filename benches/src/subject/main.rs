//! Spanflame as a measured process.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod attribution;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod cost;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod ours;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod pprof;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod shortest;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod upkeep;

fn main() -> anyhow::Result<()> {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    return spanflame_bench_rig::serve::<ours::Spanflame>();
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    anyhow::bail!("benchmarks run on Linux x86-64 only");
}
