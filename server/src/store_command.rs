//! `spanflame store …`: looking into a data directory and moving profiles in and out.

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use spanflame_server::attime;
use spanflame_server::config::{Config, DataArgs};
use spanflame_server::ingest::Limits;
use spanflame_server::model::{TenantId, TimeRange};
use spanflame_server::selector::LabelSelector;
use spanflame_server::serve::store_options;
use spanflame_server::store::{self, Deletion, Inspection, Place, Store, system_clock};
use spanflame_server::transfer::{self, ExportOptions, ImportOptions};

type Outcome = Result<ExitCode, Box<dyn Error + Send + Sync>>;

/// What to do with a data directory.
#[derive(Subcommand)]
pub(crate) enum StoreCommand {
    #[command(args_override_self = true)]
    /// Say what the data directory holds; a server may be at work there
    Inspect {
        #[command(flatten)]
        data: Box<DataArgs>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    #[command(args_override_self = true)]
    /// Read everything in the data directory and check it, and end with status 1 if anything is damaged; a server may be at
    /// work there
    Verify {
        #[command(flatten)]
        data: Box<DataArgs>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    #[command(args_override_self = true)]
    /// Write profiles into files, gzipped pprof each; a server may be at work in the data directory
    Export {
        #[command(flatten)]
        data: Box<DataArgs>,
        /// Whose profiles
        #[arg(long, default_value = TenantId::ANONYMOUS, value_parser = tenant)]
        tenant: TenantId,
        /// Only profiles that had not ended by then, as now-1d, 20260101 or Unix time
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// Only profiles that had begun by then
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// Only profiles of series that pass, as {service_name="checkout"}
        #[arg(long, value_name = "SELECTOR", default_value = "{}", value_parser = selector)]
        selector: LabelSelector,
        /// Directory to write to, empty or not there yet
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    #[command(args_override_self = true)]
    /// Remove profiles for good, from a data directory that no server uses; a server at work takes DELETE /api/v1/profiles
    Delete {
        #[command(flatten)]
        data: Box<DataArgs>,
        /// Whose profiles
        #[arg(long, value_parser = tenant)]
        tenant: TenantId,
        /// Only profiles that began then or later, as now-1d, 20260101 or Unix time
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// Only profiles that began then or earlier
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// All that the tenant has
        #[arg(long, conflicts_with_all = ["from", "until"], required_unless_present_any = ["from", "until"])]
        all: bool,
    },
    #[command(args_override_self = true)]
    /// Take profiles in from pprof files, into a data directory that no server uses
    Import {
        #[command(flatten)]
        data: Box<DataArgs>,
        /// Whose profiles they become
        #[arg(long, default_value = TenantId::ANONYMOUS, value_parser = tenant)]
        tenant: TenantId,
        /// A label of all of them, over what the files say, as service_name=checkout; may be there several times
        #[arg(long, value_name = "NAME=VALUE", value_parser = label, action = clap::ArgAction::Append)]
        label: Vec<(String, String)>,
        /// Files, and directories of files
        #[arg(required = true, value_name = "FILE|DIR")]
        paths: Vec<PathBuf>,
    },
}

fn tenant(text: &str) -> Result<TenantId, String> {
    TenantId::new(text).map_err(|error| error.to_string())
}

fn selector(text: &str) -> Result<LabelSelector, String> {
    LabelSelector::parse(text).map_err(|error| error.to_string())
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// The time between two instants in milliseconds, none if neither is named.
fn range(from: Option<&str>, until: Option<&str>) -> Result<Option<TimeRange>, Box<dyn Error + Send + Sync>> {
    if from.is_none() && until.is_none() {
        return Ok(None);
    }
    let now_nanos = system_clock()().saturating_mul(1_000_000);
    let instant = |flag: &str, text: Option<&str>, default: i64| match text {
        Some(text) => {
            let parsed = attime::parse(text, now_nanos).map_err(|error| format!("{flag}: {error}"))?;
            Ok::<i64, Box<dyn Error + Send + Sync>>(parsed.div_euclid(1_000_000))
        }
        None => Ok(default),
    };
    let (start, end) = (instant("--from", from, i64::MIN)?, instant("--until", until, i64::MAX)?);
    Ok(Some(TimeRange::new(start, end).ok_or("--until: is before --from")?))
}

/// Does it.
pub(crate) async fn run(command: StoreCommand) -> Outcome {
    // Reading a directory blocks, which is not for a thread that drives tasks.
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || run_blocking(command, &runtime)).await?
}

fn run_blocking(command: StoreCommand, runtime: &tokio::runtime::Handle) -> Outcome {
    match command {
        StoreCommand::Inspect { data, json } => inspect(&config(*data)?, json),
        StoreCommand::Verify { data, json } => verify(&config(*data)?, json),
        StoreCommand::Export { data, tenant, from, until, selector, out } => {
            let range = range(from.as_deref(), until.as_deref())?;
            let config = config(*data)?;
            let bucket = config.bucket();
            export(&ExportOptions { data_dir: config.data_dir, bucket, tenant, range, selector, out })
        }
        StoreCommand::Delete { data, tenant, from, until, all: _ } => {
            let range = range(from.as_deref(), until.as_deref())?;
            let store = Store::open(store_options(&config(*data)?))?;
            let gone = store.delete(&Deletion { tenant, range })?;
            store.shutdown();
            println!("{gone} profiles deleted");
            Ok(ExitCode::SUCCESS)
        }
        StoreCommand::Import { data, tenant, label, paths } => {
            let config = config(*data)?;
            let limits = config.tenant_limits().of(&tenant);
            let options = ImportOptions { tenant, labels: label, limits: Limits::clone(&limits), paths };
            import(&config, &options, runtime)
        }
    }
}

fn config(data: DataArgs) -> Result<Config, Box<dyn Error + Send + Sync>> {
    let args = data.into_inner();
    args.mistyped.iter().for_each(|what| eprintln!("warning: {what}"));
    Ok(Config::load(args)?)
}

fn inspect(config: &Config, json: bool) -> Outcome {
    let bucket = config.bucket();
    let found = store::inspect(Place { data_dir: &config.data_dir, bucket: bucket.as_ref() })?;
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &found)?;
        writeln!(out)?;
    } else {
        print(&mut out, &found)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn print(out: &mut impl Write, found: &Inspection) -> io::Result<()> {
    let versions = |of: &std::collections::BTreeSet<u32>| {
        let texts: Vec<String> = of.iter().map(u32::to_string).collect();
        if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
    };
    let formats = &found.formats;
    writeln!(out, "server id   {}", found.server_id.as_deref().unwrap_or("none"))?;
    writeln!(
        out,
        "formats     log {}; manifest {}; segment {}",
        versions(&formats.log),
        versions(&formats.manifest),
        versions(&formats.segment)
    )?;
    let manifest = &found.manifest;
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    writeln!(
        out,
        "manifest    {} entries ({} to {}), {} checkpoints, {} bytes",
        manifest.entries,
        number(manifest.first_entry),
        number(manifest.last_entry),
        manifest.checkpoints.len(),
        manifest.bytes
    )?;
    for tenant in &found.tenants {
        writeln!(
            out,
            "\ntenant {}: profiles from {} to {} ms",
            tenant.tenant, tenant.oldest_ms, tenant.newest_ms
        )?;
        write!(
            out,
            "  in {} segments: {} profiles, {} samples, {} bytes",
            tenant.segments, tenant.segment_profiles, tenant.segment_samples, tenant.segment_bytes
        )?;
        match tenant.bytes_per_sample {
            Some(bytes) => writeln!(out, ", {bytes:.2} bytes per sample")?,
            None => writeln!(out)?,
        }
        writeln!(
            out,
            "  in the log: {} profiles, {} samples, {} bytes",
            tenant.log_profiles, tenant.log_samples, tenant.log_bytes
        )?;
    }
    if !found.log_files.is_empty() {
        writeln!(
            out,
            "\n{:>8} {:>7} {:>12} {:>9} {:>9} {:>9} {:>10}",
            "log", "version", "bytes", "records", "profiles", "damaged", "unfinished"
        )?;
    }
    for log in &found.log_files {
        let version = log.version.map_or_else(|| "-".to_owned(), |version| version.to_string());
        writeln!(
            out,
            "{:>8} {version:>7} {:>12} {:>9} {:>9} {:>9} {:>10}",
            log.number, log.bytes, log.records, log.profiles, log.damaged_bytes, log.unfinished_bytes
        )?;
    }
    if !found.segments.is_empty() {
        writeln!(
            out,
            "\n{:<50} {:>5} {:>14} {:>14} {:>9} {:>10} {:>10} {:>12}  tenant",
            "segment", "level", "from ms", "to ms", "profiles", "samples", "spans", "bytes"
        )?;
    }
    for segment in &found.segments {
        writeln!(
            out,
            "{:<50} {:>5} {:>14} {:>14} {:>9} {:>10} {:>10} {:>12}  {}",
            segment.name,
            segment.level,
            segment.start_ms,
            segment.end_ms,
            segment.profiles,
            segment.samples,
            segment.spans,
            segment.bytes,
            segment.tenant
        )?;
    }
    for name in &found.unlisted {
        writeln!(out, "{name}: not in the manifest; it is being written, or goes at the next start")?;
    }
    Ok(())
}

fn verify(config: &Config, json: bool) -> Outcome {
    let mut damages = Vec::new();
    let bucket = config.bucket();
    let place = Place { data_dir: &config.data_dir, bucket: bucket.as_ref() };
    let verified = store::verify(place, |damage| {
        if !json {
            // As it is found: reading everything takes a while.
            println!("{}, byte {}: {}: {}", damage.object, damage.offset, damage.what, damage.means);
        }
        damages.push(damage);
    })?;
    if json {
        let found = serde_json::json!({ "checked": verified, "damages": damages });
        println!("{found:#}");
    } else {
        println!(
            "{} damages in {} objects of the manifest, {} segments of {} pieces, {} log files of {} records; {} bytes read, {} of them unfinished writes",
            verified.damages,
            verified.manifest_objects,
            verified.segments,
            verified.pieces,
            verified.log_files,
            verified.records,
            verified.bytes,
            verified.unfinished_bytes
        );
    }
    Ok(if verified.damages == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn export(options: &ExportOptions) -> Outcome {
    let exported = transfer::export(options)?;
    exported.damages.iter().for_each(|damage| eprintln!("error: {damage}"));
    let (files, series, bytes) = (exported.files, exported.series, exported.bytes);
    println!("{files} files of {series} series, {bytes} bytes, in {}", options.out.display());
    Ok(if exported.damages.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn import(config: &Config, options: &ImportOptions, runtime: &tokio::runtime::Handle) -> Outcome {
    let store = Store::open(store_options(config))?;
    let tell = |path: &std::path::Path, what: &str| eprintln!("error: {}: {what}", path.display());
    let imported = runtime.block_on(transfer::import(&store, options, tell))?;
    store.shutdown();
    println!(
        "{} profiles of {} files; {} files not taken",
        imported.profiles, imported.files, imported.failed
    );
    Ok(if imported.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
