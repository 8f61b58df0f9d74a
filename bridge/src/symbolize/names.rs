//! Function names as a reader wants them. blazesym demangles; what is left here is what no reader needs (hashes, type
//! arguments), what reads badly (closures, the bodies of async functions), and paths that debug information leaves out.
//! Text in, text out.

use std::borrow::Cow;
use std::path::{Component, Path};

/// The longest name that is kept, in bytes; of a longer one, the beginning.
const MAX_NAME: usize = 1024;

/// `name` without what the compiler appends to make symbols unique (`.llvm.…`, a hash, the type arguments of a call),
/// and with its closures written alike, however they were mangled: `{closure}`, `{closure#1}`, `{async fn}`.
pub(super) fn readable(name: &str) -> Cow<'_, str> {
    // Most names have none of this: what is looked for first is a single byte.
    let name = match name.contains('.') {
        true => name.split_once(".llvm.").map_or(name, |(function, _)| function),
        false => name,
    };
    let is_hash = |hash: &str| hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let (path, end) =
        name.split_at_checked(name.len().saturating_sub("::h".len() + 16)).unwrap_or((name, ""));
    let name = if end.strip_prefix("::h").is_some_and(is_hash) { path } else { name };
    let name = closures(without_type_arguments(Cow::Borrowed(name)));
    if name.len() <= MAX_NAME {
        return name;
    }
    let end = (0..=MAX_NAME).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    Cow::Owned(name[..end].to_owned())
}

/// Without every `::<…>`, as v0 mangling has them.
fn without_type_arguments(name: Cow<'_, str>) -> Cow<'_, str> {
    let mut name = name;
    if !name.contains('<') {
        return name;
    }
    while let Some(start) = name.find("::<") {
        let Some(length) = bracketed(&name[start + 2..]) else { return name };
        let rest = name[start + 2 + length..].to_owned();
        let mut shorter = name.into_owned();
        shorter.truncate(start);
        shorter.push_str(&rest);
        name = Cow::Owned(shorter);
    }
    name
}

/// The length of the bracketed text that `text` begins with, brackets included. The `>` of an arrow closes none.
fn bracketed(text: &str) -> Option<usize> {
    let (mut depth, mut before) = (0usize, b' ');
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'<' => depth += 1,
            b'>' if before != b'-' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return Some(at + 1);
        }
        before = byte;
    }
    None
}

/// What has no name of its own, alike in symbols of either mangling and in debug information, which alone knows what
/// is async. The first of its kind in a function has no number.
fn closures(name: Cow<'_, str>) -> Cow<'_, str> {
    const KINDS: [(&str, &str); 4] = [
        ("{closure#", "{closure"),
        ("{async_fn#", "{async fn"),
        ("{async_block#", "{async block"),
        ("{async_closure#", "{async closure"),
    ];
    if !name.contains('{') {
        return name;
    }
    let mut name = name.replace("{{closure}}", "{closure}");
    for (raw, shown) in KINDS {
        if name.contains(raw) {
            name = name.replace(&format!("{raw}0}}"), &format!("{shown}}}"));
            name = name.replace(raw, &format!("{shown}#"));
        }
    }
    Cow::Owned(name)
}

/// A function's name as line tables have it: no path, but type arguments. `None` if `name` has a path.
pub(super) fn bare(name: &str) -> Option<&str> {
    let plain = match name.find('<') {
        Some(0) => return None,
        Some(start) => &name[..start],
        None => name,
    };
    (!plain.is_empty() && !plain.contains("::")).then_some(plain)
}

/// The name of the function that others are inlined into: `symbol` has its path, and `bare`, from debug information,
/// says whether the last closure of that path is the body of something async.
pub(super) fn outermost(symbol: &str, bare: &str) -> String {
    match symbol.strip_suffix("{closure}") {
        Some(path) if bare.starts_with("{async ") => format!("{path}{bare}"),
        _ => symbol.to_owned(),
    }
}

/// A path for the bare name of an inlined function: the module that its source file holds. `around` is the function that
/// it is inlined into, with that one's file, and names the crate if both are of one.
pub(super) fn qualified(bare: &str, file: &str, around: (&str, &str)) -> String {
    let (around, around_file) = around;
    let (root, modules) = source(file).unwrap_or((file, Vec::new()));
    let crate_name = crate_of(root).or_else(|| {
        let is_same = !file.is_empty() && source(around_file).map_or(around_file, |(other, _)| other) == root;
        let (name, _) = around.split_once("::")?;
        (is_same && is_name(name)).then(|| name.to_owned())
    });
    let path: Vec<&str> = crate_name.as_deref().into_iter().chain(modules).chain([bare]).collect();
    path.join("::")
}

fn is_name(part: &str) -> bool {
    !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// The directory of a crate's sources and the modules that a file of it stands for.
fn source(file: &str) -> Option<(&str, Vec<&str>)> {
    let (root, inside) = file.rsplit_once("/src/").or_else(|| Some(("", file.strip_prefix("src/")?)))?;
    let inside = inside.strip_suffix(".rs")?;
    let mut modules: Vec<&str> = inside.split('/').filter(|part| is_name(part)).collect();
    match modules[..] {
        // A program's own file is the root of its crate.
        ["bin", _] => modules.clear(),
        [.., "mod" | "lib" | "main"] => drop(modules.pop()),
        _ => {}
    }
    Some((root, modules))
}

/// The crate whose sources are in `root`, where that is known: the standard library's, and packages with a version. A
/// directory of one's own may be called anything.
fn crate_of(root: &str) -> Option<String> {
    let mut parts = Path::new(root).components().rev().filter_map(|part| match part {
        Component::Normal(part) => part.to_str(),
        _ => None,
    });
    let (last, before) = (parts.next()?, parts.next());
    if before == Some("library") {
        return Some(last.to_owned());
    }
    let version =
        last.match_indices('-').find(|(at, _)| last[at + 1..].starts_with(|c: char| c.is_ascii_digit()));
    version.map(|(at, _)| last[..at].replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn noise_is_dropped_and_nothing_else() {
        for (raw, shown) in [
            ("app::pay::h0123456789abcdef", "app::pay"),
            ("app::pay::hash", "app::pay::hash"),
            ("app::pay::{{closure}}", "app::pay::{closure}"),
            ("app::pay::{{closure}}::{{closure}}", "app::pay::{closure}::{closure}"),
            ("app::pay::{closure#0}::{closure#1}", "app::pay::{closure}::{closure#1}"),
            ("app::pay::{closure#10}", "app::pay::{closure#10}"),
            ("{async_fn#0}", "{async fn}"),
            ("{async_block#2}", "{async block#2}"),
            ("app::pay::h0123456789abcdef.llvm.123", "app::pay"),
            ("core::ptr::drop_in_place<u8>.llvm.42", "core::ptr::drop_in_place<u8>"),
            ("core::ptr::drop_in_place::<alloc::vec::Vec<u8>>", "core::ptr::drop_in_place"),
            ("app::map::<fn(u8) -> u8, app::T>::{closure#0}", "app::map::{closure}"),
            ("<app::Cart as core::ops::Add<u8>>::add::<i8>", "<app::Cart as core::ops::Add<u8>>::add"),
            ("app::broken::<u8", "app::broken::<u8"),
            ("std::vector<int>::push_back(int const&)", "std::vector<int>::push_back(int const&)"),
            ("memcpy", "memcpy"),
            ("", ""),
        ] {
            assert_eq!(readable(raw), shown);
        }
        assert_eq!(readable(&"é".repeat(MAX_NAME)).len(), MAX_NAME);
    }

    #[test]
    fn a_bare_name_has_no_path_and_loses_its_type_arguments() {
        for (raw, found) in [
            ("fold<u64, app::Cart, app::pay::{closure_env#0}>", Some("fold")),
            ("{closure#0}<()>", Some("{closure#0}")),
            ("main", Some("main")),
            ("app::main", None),
            ("<app::Cart as core::ops::Add>::add", None),
            ("", None),
        ] {
            assert_eq!(bare(raw), found, "{raw}");
        }
    }

    #[test]
    fn the_symbol_has_the_path_and_debug_information_knows_what_is_async() {
        for (symbol, bare, shown) in [
            ("app::pay::{closure}", "{async fn}", "app::pay::{async fn}"),
            ("app::pay::{closure}::{closure}", "{async block#1}", "app::pay::{closure}::{async block#1}"),
            ("app::pay::{closure}", "{closure}", "app::pay::{closure}"),
            ("app::pay", "{async fn}", "app::pay"),
        ] {
            assert_eq!(outermost(symbol, bare), shown);
        }
    }

    #[test]
    fn an_inlined_function_is_placed_by_its_file() {
        let std = "/rustc/59807616e/library/core/src/slice/iter.rs";
        let registry = "/r/registry/src/index.crates.io-1949/serde-json-1.0.149/src/value/mod.rs";
        let around = ("shop::pay::Cart::total", "/home/me/shop/src/pay.rs");
        for (name, file, around, shown) in [
            ("next", std, around, "core::slice::iter::next"),
            ("get", registry, around, "serde_json::value::get"),
            ("tax", "/home/me/shop/src/pay.rs", around, "shop::pay::tax"),
            ("rate", "/home/me/shop/src/tax/eu.rs", around, "shop::tax::eu::rate"),
            (
                "sum",
                "/home/me/shop/src/bin/job.rs",
                ("job::main", "/home/me/shop/src/bin/job.rs"),
                "job::sum",
            ),
            ("run", "/home/me/shop/src/main.rs", around, "shop::run"),
            ("other", "/home/me/common/src/lib.rs", around, "other"),
            ("other", "/home/me/common/src/log.rs", around, "log::other"),
            ("tax", "src/tax.rs", ("shop::pay::total", "src/pay.rs"), "shop::tax::tax"),
            ("spin", "tests/it/support.rs", ("it::support::burn", "tests/it/support.rs"), "it::spin"),
            ("spin", "t.rs", ("it::burn::{closure}::{closure}", "t.rs"), "it::spin"),
            ("spin", "t.rs", ("<it::A as it::B>::burn", "t.rs"), "spin"),
            ("spin", "", ("it::burn", ""), "spin"),
            ("memcpy", "../sysdeps/memcpy.S", around, "memcpy"),
        ] {
            assert_eq!(qualified(name, file, around), shown, "{file}");
        }
    }

    proptest! {
        #[test]
        fn names_of_any_shape_are_survived(name in "[a-c:<>{}#0> -]{0,40}", file in "[a-c/.:s-]{0,30}") {
            let shown = readable(&name).into_owned();
            prop_assert_eq!(&*readable(&shown), &*shown, "nothing is left to do");
            let _ = bare(&name);
            let _ = qualified(&name, &file, (&shown, &file));
        }
    }
}
