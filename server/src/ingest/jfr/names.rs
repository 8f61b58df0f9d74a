//! Names of what the Java runtime makes up while it runs, made the same from run to run.
//!
//! Lambdas, reflection's accessors and libraries unpacked to temporary files have a number or random characters in their
//! names: the same code would be another function in every process.

use std::borrow::Cow;

/// As many hexadecimal digits in a row are no version but random.
const RANDOM_DIGITS: usize = 16;

/// The name without what differs from run to run, which becomes `_`.
pub(super) fn stable(name: Cow<'_, str>) -> Cow<'_, str> {
    let made = lambda(&name).or_else(|| hidden(&name)).or_else(|| accessor(&name)).or_else(|| library(&name));
    made.map_or(name, Cow::Owned)
}

/// `Fib$$Lambda$14.0x0000000800fd7318`, `Fib$$Lambda+0x00007ffa600c4da0/123338397` → `Fib$$Lambda_`.
fn lambda(name: &str) -> Option<String> {
    const MARK: &str = "$$Lambda";
    let end = name.find(MARK)? + MARK.len();
    let tail = &name[end..];
    let made_up = |b: u8| b.is_ascii_hexdigit() || b"$+./x".contains(&b);
    (!tail.is_empty() && tail.bytes().all(made_up)).then(|| format!("{}_", &name[..end]))
}

/// `java/lang/invoke/LambdaForm$DMH+0x0000000800fd2000/323359681` → `java/lang/invoke/LambdaForm$DMH_`.
fn hidden(name: &str) -> Option<String> {
    let end = ["+0x", "/0x", ".0x"].into_iter().filter_map(|mark| name.find(mark)).min()?;
    let tail = &name[end + 3..];
    let made_up = |b: u8| b.is_ascii_hexdigit() || b == b'/';
    (!tail.is_empty() && tail.bytes().all(made_up)).then(|| format!("{}_", &name[..end]))
}

/// `jdk/internal/reflect/GeneratedMethodAccessor31` → `jdk/internal/reflect/GeneratedMethodAccessor_`.
fn accessor(name: &str) -> Option<String> {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let made_up = stem.len() < name.len() && stem.contains("/Generated") && stem.ends_with("Accessor");
    made_up.then(|| format!("{stem}_"))
}

/// `/tmp/libzstd-jni-1.5.1-16931311898282279136.so (deleted)` → `libzstd-jni-1.5.1-_.so`.
fn library(name: &str) -> Option<String> {
    let stem = name.strip_suffix(" (deleted)").unwrap_or(name).strip_suffix(".so")?;
    let is_random = |run: &str| run.len() >= RANDOM_DIGITS && run.bytes().all(|b| b.is_ascii_hexdigit());
    stem.split(|c: char| !c.is_ascii_hexdigit()).find(|run| is_random(run))?;
    // The folder it was unpacked to may be what is random.
    let mut rest = stem.rsplit_once('/').map_or(stem, |(_, file)| file);
    let mut stable = String::with_capacity(rest.len());
    while let Some(first) = rest.chars().next() {
        let digits = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
        let (run, after) = rest.split_at(digits.max(first.len_utf8()));
        stable.push_str(if is_random(run) { "_" } else { run });
        rest = after;
    }
    Some(stable + ".so")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_made_up_goes() {
        for (name, expected) in [
            ("org/example/Order$$Lambda$669.0x0000000800fd7318", "org/example/Order$$Lambda_"),
            ("Fib$$Lambda.0x00007ffa600c4da0", "Fib$$Lambda_"),
            ("Fib$$Lambda/0x00007ffa600c4da0", "Fib$$Lambda_"),
            ("Fib$$Lambda$226+0x0000000800f00838/8415638", "Fib$$Lambda_"),
            (
                "java/lang/invoke/LambdaForm$DMH+0x0000000800fd2000/323359681",
                "java/lang/invoke/LambdaForm$DMH_",
            ),
            ("java/lang/invoke/LambdaForm$MH/0x0000000800c01400", "java/lang/invoke/LambdaForm$MH_"),
            ("Fib$$Lambda$14/605981969", "Fib$$Lambda_"),
            ("Fib$$Lambda14", "Fib$$Lambda_"),
            (
                "jdk/internal/reflect/GeneratedMethodAccessor31",
                "jdk/internal/reflect/GeneratedMethodAccessor_",
            ),
            ("sun/reflect/GeneratedConstructorAccessor7", "sun/reflect/GeneratedConstructorAccessor_"),
            ("libzstd-jni-1.5.1-16931311898282279136.so", "libzstd-jni-1.5.1-_.so"),
            (
                "/tmp/libasyncProfiler-linux-x64-17b9a1d8156277a98ccc871afa9a8f69215f92.so (deleted)",
                "libasyncProfiler-linux-x64-_.so",
            ),
            ("./tmp/Native.7382c2f79097f415/libcrypto.so", "libcrypto.so"),
        ] {
            assert_eq!(stable(name.into()), expected, "{name}");
        }
    }

    #[test]
    fn other_names_stay() {
        for name in [
            "",
            "java/lang/Thread",
            "Fib$$Lambda",
            "Fib$$LambdaForm",
            "libc-2.31.so",
            "libjvm.so",
            "GeneratedMethodAccessor3",
            "org/example/Accessor2",
            "do_syscall_64_[k]",
            "libcrypto.so.1.1",
        ] {
            assert_eq!(stable(name.into()), name);
        }
    }

    proptest! {
        #[test]
        fn any_name_has_a_stable_one(name in "(.*\\$\\$Lambda)?.*(\\.so)?") {
            let once = stable(name.as_str().into()).into_owned();
            prop_assert_eq!(stable(once.as_str().into()), once.as_str());
        }
    }
}
