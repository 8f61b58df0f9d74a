//! Function names as a reader wants them. blazesym demangles and drops hashes where the language is told; what is
//! left here is what it passes through.

/// `name` without what the compiler appends to make symbols unique: `.llvm.…` and a hash.
pub(super) fn readable(name: &str) -> &str {
    let name = name.split_once(".llvm.").map_or(name, |(function, _)| function);
    match name.rsplit_once("::h") {
        Some((path, hash))
            if hash.len() == 16 && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) =>
        {
            path
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::readable;

    #[test]
    fn hashes_and_compiler_suffixes_are_dropped_and_nothing_else() {
        for (raw, shown) in [
            ("app::pay::h0123456789abcdef", "app::pay"),
            ("app::pay::hash", "app::pay::hash"),
            ("app::pay::{{closure}}", "app::pay::{{closure}}"),
            ("app::pay::h0123456789abcdef.llvm.123", "app::pay"),
            ("core::ptr::drop_in_place<u8>.llvm.42", "core::ptr::drop_in_place<u8>"),
            ("memcpy", "memcpy"),
            ("", ""),
        ] {
            assert_eq!(readable(raw), shown);
        }
    }
}
