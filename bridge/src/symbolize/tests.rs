use super::*;

#[test]
fn a_return_address_is_looked_up_in_the_call_before_it() {
    assert_eq!(lookup_address(0x1000, 0), 0x1000);
    assert_eq!(lookup_address(0x1000, 1), 0xfff);
}

#[test]
fn an_address_without_symbol_keeps_its_module_and_place() {
    let module = Module {
        start: 0x10_0000,
        end: 0x10_1000,
        bias: 0xf_0000,
        file_offset: 0,
        path: Path::new("/does/not/exist/libx.so.1").into(),
        build_id: Arc::from([1, 2]),
        unloaded: false,
    };
    let mut symbolizer = Symbolizer::new();
    let found = symbolizer.symbolize(&[module], &[0x10_0010, 0x20_0000]);
    assert_eq!(found[0].module, Some(0));
    assert!(!found[0].named);
    assert_eq!(&*found[0].lines[0].function.name, "libx.so.1+0x10010");
    assert_eq!(found[1].module, None);
    assert_eq!(&*found[1].lines[0].function.name, "[unknown]");
    assert_eq!(symbolizer.kept(), 1);
}
