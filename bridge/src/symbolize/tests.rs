use super::*;

#[test]
fn a_return_address_is_looked_up_in_the_call_before_it() {
    assert_eq!(lookup_address(0x1000, 0), 0x1000);
    assert_eq!(lookup_address(0x1000, 1), 0xfff);
}

fn module(path: &str, bias: u64) -> Module {
    Module {
        start: bias,
        end: u64::MAX,
        bias,
        file_offset: 0,
        path: Path::new(path).into(),
        build_id: Arc::from([1, 2]),
        unloaded: false,
    }
}

#[test]
fn an_address_without_symbol_keeps_its_module_and_place() {
    let nowhere = Module { end: 0x10_1000, ..module("/does/not/exist/libx.so.1", 0x10_0000) };
    let mut symbolizer = Symbolizer::new();
    let found = symbolizer.symbolize(&[nowhere], &[0x10_0010, 0x20_0000]);
    assert_eq!(found[0].module, Some(0));
    assert!(!found[0].named);
    assert_eq!(&*found[0].lines[0].function.name, "libx.so.1+0x10");
    assert_eq!(found[1].module, None);
    assert_eq!(&*found[1].lines[0].function.name, "[unknown]");
    assert_eq!(symbolizer.kept(), 1);
}

/// Where this program is loaded: its first mapping is of the start of its file.
#[cfg(target_os = "linux")]
fn this_program() -> Module {
    let path = std::env::current_exe().expect("a running program").to_string_lossy().into_owned();
    let maps = std::fs::read_to_string("/proc/self/maps").expect("a map of this process");
    let first = maps.lines().find(|line| line.ends_with(&path)).expect("this program is mapped");
    let start = first.split('-').next().expect("an address");
    module(&path, u64::from_str_radix(start, 16).expect("hexadecimal"))
}

#[cfg(target_os = "linux")]
#[inline(never)]
fn a_function_to_find() -> u32 {
    std::hint::black_box(line!())
}

#[cfg(target_os = "linux")]
#[test]
fn a_function_of_this_program_is_found_with_file_and_line_and_asked_for_once() {
    let program = [this_program()];
    let address = a_function_to_find as *const () as u64;
    let mut symbolizer = Symbolizer::new();
    let first = symbolizer.symbolize(&program, &[address, address]).remove(1);
    assert!(first.named);
    let Line { function, line } = &first.lines[0];
    assert_eq!(&*function.name, "spanflame::symbolize::tests::a_function_to_find");
    assert!(function.file.ends_with("symbolize/tests.rs"), "{}", function.file);
    assert!(a_function_to_find().abs_diff(*line) <= 2, "{line}");
    assert!(symbolizer.reader.is_some());

    let again = symbolizer.symbolize(&program, &[address]).remove(0);
    assert!(Arc::ptr_eq(&first.lines, &again.lines));
    assert!(symbolizer.reader.is_none(), "what the reader keeps in memory is let go");
    assert_eq!(symbolizer.kept(), 1);
}

#[test]
fn what_is_kept_is_bounded() {
    let nowhere = [module("/does/not/exist/libx.so.1", 0)];
    let mut symbolizer = Symbolizer::new();
    for round in 0..3 {
        let addresses: Vec<u64> = (0..MAX_ANSWERS as u64 / 2 + 1).map(|i| round << 32 | i).collect();
        let found = symbolizer.symbolize(&nowhere, &addresses);
        assert_eq!(found.len(), addresses.len());
        assert!(symbolizer.kept() <= MAX_ANSWERS);
    }
}
