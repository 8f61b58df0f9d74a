//! Lists the built page's files for `src/ui.rs`; without `ui/dist` a stub takes its place, so that building the server
//! never needs the page's tools. Turns the document of the interface, which people read and write as YAML, into JSON.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

const STUB: &str =
    "<!doctype html><title>Spanflame</title><p>This binary was built without the page; see server/ui.</p>\n";

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let document = root.join("../docs/openapi.yaml");
    println!("cargo:rerun-if-changed={}", document.display());
    let document: serde_json::Value =
        serde_saphyr::from_str(&fs::read_to_string(document)?).map_err(io::Error::other)?;
    fs::write(out.join("openapi.json"), document.to_string())?;
    let dist = root.join("ui/dist");

    let mut files = Vec::new();
    let base = if dist.join("index.html").is_file() {
        println!("cargo:rerun-if-changed=ui/dist");
        collect(&dist, &mut files)?;
        files.sort();
        dist
    } else {
        println!("cargo:rerun-if-changed=ui");
        println!("cargo:rerun-if-changed=build.rs");
        let stub = out.join("index.html");
        fs::write(&stub, STUB)?;
        files.push(stub);
        out.clone()
    };

    let mut table = String::from("&[\n");
    for file in &files {
        let name = file.strip_prefix(&base).expect("collected below it").to_string_lossy().replace('\\', "/");
        writeln!(table, "    ({name:?}, include_bytes!({:?})),", file.display()).expect("a string takes it");
    }
    table.push(']');
    fs::write(out.join("ui_files.rs"), table)
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { collect(&path, files)? } else { files.push(path) }
    }
    Ok(())
}
