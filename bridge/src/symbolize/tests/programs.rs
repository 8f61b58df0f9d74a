//! Small programs as they are really built, and what becomes of their names.
#![cfg(target_os = "linux")]

use std::path::PathBuf;
use std::process::Command;

use super::super::reader::Reader;
use super::*;

const SOURCE: &str = r#"
use std::future::Future;
use std::hint::black_box;
use std::task::{Context, Waker};

#[inline(always)]
fn spin(rounds: u64) -> u64 {
    let mut state = rounds;
    for i in 0..rounds {
        state = black_box(state ^ i).rotate_left(3);
    }
    state
}

pub mod pay {
    #[inline(never)]
    pub fn total<T: Default>(rounds: u64) -> u64 {
        std::hint::black_box(&T::default());
        super::spin(rounds)
    }

    pub async fn checkout(rounds: u64) -> u64 {
        let nested = async move { super::yields().await; super::spin(rounds) };
        let boxed: std::pin::Pin<Box<dyn Future<Output = u64>>> = Box::pin(nested);
        std::hint::black_box(boxed).await + total::<Vec<u8>>(rounds)
    }

    use std::future::Future;
}

async fn yields() {}

#[inline(never)]
fn poll(future: std::pin::Pin<&mut dyn Future<Output = u64>>) {
    let mut context = Context::from_waker(Waker::noop());
    let _ = black_box(future.poll(&mut context));
}

fn main() {
    let rounds = std::env::args().count() as u64;
    let mut future: std::pin::Pin<Box<dyn Future<Output = u64>>> = black_box(Box::pin(pay::checkout(rounds)));
    poll(future.as_mut());
    println!("{}", pay::total::<String>(rounds));
}
"#;

/// A program called `shop`, in a directory of its own.
struct Program {
    directory: tempfile::TempDir,
}

impl Program {
    fn build(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(directory.path().join("src")).expect("a directory");
        std::fs::write(directory.path().join("src/main.rs"), SOURCE).expect("written");
        let program = Self { directory };
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let common = ["src/main.rs", "--crate-name=shop", "--edition=2024", "-Copt-level=2", "-o", "shop"];
        program.run(Command::new(rustc).args(common).args(flags).args(["-Clink-arg=-Wl,--build-id"]));
        program
    }

    fn run(&self, command: &mut Command) {
        let output = command.current_dir(self.directory.path()).output().expect("it is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn tool(&self, name: &str, arguments: &[&str]) {
        self.run(Command::new(name).args(arguments));
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("shop")
    }

    /// Where its functions are and what the symbol table calls them, before any of it is stripped.
    fn functions(&self) -> Vec<(u64, u64, String)> {
        let output =
            Command::new("nm").args(["-S", "-C"]).arg(self.path()).output().expect("it is installed");
        let text = String::from_utf8(output.stdout).expect("text");
        let function = |line: &str| {
            let mut fields = line.splitn(4, ' ');
            let (start, size, kind) = (fields.next()?, fields.next()?, fields.next()?);
            let name = fields.next()?.to_owned();
            let number = |text| u64::from_str_radix(text, 16).ok();
            (matches!(kind, "t" | "T") && name.contains("shop")).then_some((
                number(start)?,
                number(size)?,
                name,
            ))
        };
        text.lines().filter_map(function).collect()
    }

    fn build_id(&self) -> Vec<u8> {
        let output = Command::new("readelf").arg("-n").arg(self.path()).output().expect("it is installed");
        let text = String::from_utf8(output.stdout).expect("text");
        let id = text.lines().find_map(|line| line.trim().strip_prefix("Build ID: ")).expect("a build id");
        let byte = |at: usize| u8::from_str_radix(&id[at..at + 2], 16).expect("hexadecimal");
        (0..id.len()).step_by(2).map(byte).collect()
    }

    /// What is known of every byte of the functions given: lists of calls, innermost first.
    fn calls(&self, reader: &Reader, functions: &[(u64, u64, String)]) -> Vec<Option<Vec<Call>>> {
        let file = ModuleFile { path: self.path().into(), build_id: self.build_id().into() };
        let offsets: Vec<u64> = functions.iter().flat_map(|(start, size, _)| *start..start + size).collect();
        let names = reader.functions(&file, &offsets);
        reader.calls(&file, &offsets, &names)
    }
}

/// Calls as text, `name file-name` each, innermost first; without repetition.
fn texts(found: Vec<Option<Vec<Call>>>) -> Vec<String> {
    let call = |call: &Call| {
        let place = if call.line > 0 { Path::new(&call.file).file_name() } else { None };
        format!("{} [{}]", call.name, place.unwrap_or_default().to_string_lossy())
    };
    let mut texts: Vec<String> =
        found.iter().flatten().map(|calls| calls.iter().map(call).collect::<Vec<_>>().join(" < ")).collect();
    texts.sort();
    texts.dedup();
    texts
}

/// Whether some address is in `chain`, a list of `name [file]` from the innermost on.
fn has(texts: &[String], chain: &str) -> bool {
    texts.iter().any(|text| text == chain || text.ends_with(&format!("< {chain}")))
}

/// What every build with debug information must show: inlined functions under a path, the async function's body and
/// the block in it under a readable name, the instances of a generic function under one.
fn shows_all(texts: &[String], body: &str, block: &str) {
    for chain in [
        "shop::spin [main.rs] < shop::pay::total [main.rs]",
        &format!("shop::spin [main.rs] < shop::pay::checkout::{block} [main.rs]"),
        &format!("shop::pay::checkout::{body} [main.rs]"),
        "shop::poll [main.rs]",
    ] {
        assert!(has(texts, chain), "{chain} is not among {texts:#?}");
    }
    for noise in ["17h", "{{", "::<", "_ZN", "_R", "total<"] {
        assert!(!texts.iter().any(|text| text.contains(noise)), "{noise} is among {texts:#?}");
    }
}

/// Where names are symbols, an async body is a closure; line tables have names of their own, which tell.
const PLAIN: (&str, &str) = ("{closure}", "{closure}::{closure}");
const ASYNC: (&str, &str) = ("{async fn}", "{closure}::{async block}");

#[test]
fn line_tables_and_full_debug_information_with_either_mangling() {
    for (debug, (body, block)) in [("-Cdebuginfo=line-tables-only", ASYNC), ("-Cdebuginfo=full", PLAIN)] {
        // The second is the one that is not the compiler's own choice, whichever that is.
        for mangling in [None, Some("-Csymbol-mangling-version=v0")] {
            let flags: Vec<&str> = [debug].into_iter().chain(mangling).collect();
            let program = Program::build(&flags);
            let texts = texts(program.calls(&Reader::new(), &program.functions()));
            shows_all(&texts, body, block);
        }
    }
}

#[test]
fn debug_information_in_a_package_beside_the_program() {
    let program = Program::build(&["-Cdebuginfo=1", "-Csplit-debuginfo=packed"]);
    assert!(program.path().with_extension("dwp").exists());
    let texts = texts(program.calls(&Reader::new(), &program.functions()));
    shows_all(&texts, PLAIN.0, PLAIN.1);
}

#[test]
fn debug_information_left_in_object_files_leaves_functions_and_lines() {
    let program = Program::build(&["-Cdebuginfo=1", "-Csplit-debuginfo=unpacked"]);
    let texts = texts(program.calls(&Reader::new(), &program.functions()));
    for chain in ["shop::pay::total [main.rs]", "shop::pay::checkout::{closure} [main.rs]"] {
        assert!(has(&texts, chain), "{chain} is not among {texts:#?}");
    }
}

#[test]
fn debug_information_in_a_file_of_its_own() {
    let program = Program::build(&["-Cdebuginfo=1"]);
    let functions = program.functions();
    program.tool("objcopy", &["--only-keep-debug", "shop", "shop.debug"]);
    program.tool("strip", &["shop"]);
    let nothing = texts(program.calls(&Reader::new(), &functions));
    assert!(!nothing.iter().any(|text| text.contains("shop")), "{nothing:?}");

    // Found by its build id, where distributions put it.
    let store = tempfile::tempdir().expect("a temporary directory");
    let id: String = program.build_id().iter().map(|byte| format!("{byte:02x}")).collect();
    let place = store.path().join(".build-id").join(&id[..2]);
    std::fs::create_dir_all(&place).expect("a directory");
    std::fs::copy(program.directory.path().join("shop.debug"), place.join(format!("{}.debug", &id[2..])))
        .expect("copied");
    let reader = Reader::with_debug_directories(vec![store.path().to_owned()]);
    shows_all(&texts(program.calls(&reader, &functions)), PLAIN.0, PLAIN.1);

    // Found by its link, beside the program.
    program.tool("objcopy", &["--add-gnu-debuglink=shop.debug", "shop"]);
    shows_all(&texts(program.calls(&Reader::new(), &functions)), PLAIN.0, PLAIN.1);

    // That of another build is not believed.
    std::fs::write(program.directory.path().join("shop.debug"), b"another build").expect("written");
    assert_eq!(texts(program.calls(&Reader::new(), &functions)), nothing);
}

#[test]
fn damaged_debug_information_leaves_the_symbol_table() {
    let program = Program::build(&["-Cdebuginfo=1"]);
    let functions = program.functions();
    program.tool("objcopy", &["--dump-section", ".debug_info=info", "shop"]);
    let path = program.directory.path().join("info");
    let mut info = std::fs::read(&path).expect("read");
    for (at, byte) in info.iter_mut().enumerate().skip(4) {
        *byte = byte.wrapping_mul(31).wrapping_add(at as u8);
    }
    std::fs::write(&path, info).expect("written");
    program.tool("objcopy", &["--update-section", ".debug_info=info", "shop"]);
    let texts = texts(program.calls(&Reader::new(), &functions));
    assert!(texts.iter().any(|text| text.contains("shop::pay::total")), "{texts:#?}");
}

#[test]
fn without_debug_information_there_are_symbols_and_without_those_module_and_place() {
    let program = Program::build(&["-Cdebuginfo=0", "-Clink-args=-rdynamic"]);
    let functions = program.functions();
    let named = texts(program.calls(&Reader::new(), &functions));
    for name in ["shop::pay::total []", "shop::pay::checkout::{closure} []", "shop::poll []"] {
        assert!(named.iter().any(|text| text == name), "{name} is not among {named:#?}");
    }
    assert!(named.iter().all(|text| !text.contains("17h") && !text.contains("{{")), "{named:#?}");

    // A stripped library or a program whose symbols are exported keeps the dynamic ones.
    program.tool("objcopy", &["--strip-unneeded", "--globalize-symbol=main", "shop"]);
    program.tool("strip", &["shop"]);
    let mut symbolizer = symbolizer();
    let build_id: Arc<[u8]> = program.build_id().into();
    let path: Arc<Path> = program.path().into();
    let stripped = Module { path, build_id: build_id.clone(), ..module("", 0x7000_0000_0000) };
    let (start, ..) = functions.iter().find(|(.., name)| name.contains("total")).expect("a function");
    let found = symbolizer.symbolize(&[stripped], &[0x7000_0000_0000 + start]).remove(0);
    assert_eq!((found.named, found.module), (false, Some(0)));
    assert_eq!(*found.lines[0].function.name, *format!("shop+{start:#x}"));
}

#[test]
fn a_stripped_library_has_the_names_that_it_exports() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let source = "#[unsafe(no_mangle)] #[inline(never)] pub extern \"C\" fn shop_total(n: u64) -> u64 { n.rotate_left(3) }";
    std::fs::write(directory.path().join("lib.rs"), source).expect("written");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let flags = ["lib.rs", "--crate-type=cdylib", "--edition=2024", "-Cstrip=symbols", "-o", "libshop.so"];
    let status = Command::new(rustc).args(flags).current_dir(directory.path()).status().expect("rustc");
    assert!(status.success());
    let path = directory.path().join("libshop.so");
    let output = Command::new("nm").arg("-D").arg(&path).output().expect("it is installed");
    let text = String::from_utf8(output.stdout).expect("text");
    let line = text.lines().find(|line| line.ends_with(" shop_total")).expect("exported");
    let start = u64::from_str_radix(line.split(' ').next().expect("an address"), 16).expect("hexadecimal");
    let file = ModuleFile { path: path.into(), build_id: Arc::from([]) };
    assert_eq!(Reader::new().functions(&file, &[start]), [Some("shop_total".to_owned())]);
}
