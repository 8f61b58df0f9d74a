use super::*;

mod programs;

#[test]
fn a_return_address_is_looked_up_in_the_call_before_it() {
    assert_eq!(lookup_address(0x1000, 0), 0x1000);
    assert_eq!(lookup_address(0x1000, 1), 0xfff);
}

/// As patient as a test must be.
fn symbolizer() -> Symbolizer {
    Symbolizer::with(Limits::default(), Duration::from_secs(120))
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
    let mut symbolizer = symbolizer();
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
const ITS_NAME: &str = "spanflame::symbolize::tests::a_function_to_find";

#[cfg(target_os = "linux")]
#[test]
fn a_function_of_this_program_is_found_with_file_and_line_and_asked_for_once() {
    let program = [this_program()];
    let address = a_function_to_find as *const () as u64;
    let mut symbolizer = symbolizer();
    let first = symbolizer.symbolize(&program, &[address, address]).remove(1);
    assert!(first.named);
    let Line { function, line } = &first.lines[0];
    assert_eq!(&*function.name, ITS_NAME);
    assert!(function.file.ends_with("symbolize/tests.rs"), "{}", function.file);
    assert!(a_function_to_find().abs_diff(*line) <= 2, "{line}");
    assert!(symbolizer.background.is_some(), "the next window may bring more");

    let again = symbolizer.symbolize(&program, &[address]).remove(0);
    assert!(Arc::ptr_eq(&first.lines, &again.lines));
    assert!(symbolizer.background.is_none(), "what the reader keeps in memory is let go");
    assert_eq!(symbolizer.kept(), 1);
}

#[cfg(target_os = "linux")]
#[test]
fn a_window_does_not_wait_for_debug_information_but_the_next_ones_have_it() {
    let program = [this_program()];
    let address = a_function_to_find as *const () as u64;
    let mut symbolizer = Symbolizer::with(Limits::default(), Duration::ZERO);
    let first = symbolizer.symbolize(&program, &[address]).remove(0);
    assert_eq!((first.module, &*first.lines[0].function.name), (Some(0), ITS_NAME));
    let deadline = Instant::now() + Duration::from_secs(120);
    while symbolizer.rest() {
        assert!(Instant::now() < deadline, "{:?}", symbolizer.asked);
        std::thread::sleep(Duration::from_millis(1));
    }
    let later = symbolizer.symbolize(&program, &[address]).remove(0);
    assert_eq!(&*later.lines[0].function.name, ITS_NAME);
    assert!(later.lines[0].line > 0);
}

/// A file that can be opened, but not before somebody writes to it.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_takes_for_ever_does_not_take_the_time_of_a_shutdown() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("libslow.so");
    let made = std::process::Command::new("mkfifo").arg(&path).status().expect("it is installed");
    assert!(made.success());
    let slow = [module(path.to_str().expect("text"), 0)];
    let counters = Arc::<Counters>::default();
    let ever = Duration::from_secs(1_000_000);
    let mut symbolizer =
        Symbolizer { counters: counters.clone(), ..Symbolizer::with(Limits::default(), ever) };
    symbolizer.patience_for_names = ever;
    let (done, found) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || done.send(symbolizer.symbolize(&slow, &[0x10]).remove(0)));
    // While it waits, or before.
    counters.deadline.set(Instant::now() + Duration::from_millis(200));
    let found = found.recv_timeout(Duration::from_secs(120)).expect("it does not wait for ever");
    assert_eq!((found.named, &*found.lines[0].function.name), (false, "libslow.so+0x10"));
    thread.join().expect("no panic").expect("received");
    // Lets the reader go.
    drop(std::fs::OpenOptions::new().write(true).open(&path).expect("somebody reads"));
}

#[cfg(target_os = "linux")]
#[test]
fn what_reading_costs_counts_for_the_profiler() {
    let counters = Arc::<Counters>::default();
    let mut symbolizer = Symbolizer { counters: counters.clone(), ..symbolizer() };
    symbolizer.symbolize(&[this_program()], &[a_function_to_find as *const () as u64]);
    assert!(counters.background.cpu_time() > Duration::ZERO);
    drop(symbolizer);
    assert!(counters.background.cpu_time() > Duration::ZERO, "after the thread has ended, too");
}

#[test]
fn addresses_beyond_what_may_be_asked_for_are_not_waited_for() {
    let mut symbolizer = Symbolizer { most_asked: 2, ..symbolizer() };
    symbolizer.patience_for_names = Duration::from_secs(1_000_000);
    let found = symbolizer.symbolize(&[module("/does/not/exist/libx.so.1", 0)], &[1, 2, 3]);
    assert_eq!(&*found[2].lines[0].function.name, "libx.so.1+0x3");
    assert_eq!(symbolizer.kept(), 2);
}

#[test]
fn what_nobody_can_name_is_not_kept() {
    let nowhere = [module("/does/not/exist/libx.so.1", 0)];
    let mut symbolizer = Symbolizer { deaths: MAX_DEATHS, ..symbolizer() };
    for address in 0..10 {
        let found = symbolizer.symbolize(&nowhere, &[address]).remove(0);
        assert_eq!(*found.lines[0].function.name, *format!("libx.so.1+{address:#x}"));
    }
    assert_eq!((symbolizer.kept(), symbolizer.cache.functions()), (0, 0));
}

#[test]
fn names_serve_until_the_calls_are_known_and_for_good_if_they_never_come() {
    let nowhere = [module("/does/not/exist/libx.so.1", 0)];
    let mut symbolizer = Symbolizer::with(Limits::default(), Duration::ZERO);
    symbolizer.patience_for_names = Duration::ZERO;
    let file = symbolizer.file(&nowhere[0]);
    let named = |name: &str| Found {
        file,
        module: module_file(&nowhere[0]),
        answers: Answers::Names(vec![(0x10, Some(name.to_owned()))]),
    };
    symbolizer.asked.insert((file, 0x10));
    symbolizer.absorb(named("app::pay"), &mut Wanted::default());
    let name = |symbolizer: &mut Symbolizer| {
        let found = symbolizer.symbolize(&nowhere, &[0x10]).remove(0);
        found.lines[0].function.name.clone()
    };
    assert_eq!(&*name(&mut symbolizer), "app::pay");
    // The thread that was asked is gone; nobody is asked a second time.
    symbolizer.give_up();
    assert_eq!(&*name(&mut symbolizer), "app::pay");
    assert!(symbolizer.asked.is_empty() && symbolizer.background.is_none());
}

#[test]
fn what_is_kept_is_bounded_by_number_and_by_bytes_and_the_latest_stay() {
    let nowhere = [module("/does/not/exist/libx.so.1", 0)];
    for limits in [Limits { answers: 400, bytes: 1 << 20 }, Limits { answers: 1 << 20, bytes: 100_000 }] {
        let mut symbolizer = Symbolizer::with(limits, Duration::from_secs(120));
        for round in 0..4u64 {
            // More than fits, in one window.
            let addresses: Vec<u64> = (0..1000).map(|i| round << 32 | i).collect();
            let found = symbolizer.symbolize(&nowhere, &addresses);
            for (address, found) in addresses.iter().zip(found) {
                assert_eq!(*found.lines[0].function.name, *format!("libx.so.1+{address:#x}"));
            }
            assert!(symbolizer.kept() <= limits.answers && symbolizer.cache.bytes() <= limits.bytes);
            // Functions that only the last window used go with the next one's.
            assert!(symbolizer.cache.functions() <= symbolizer.kept() + 1000);
        }
        assert!(symbolizer.kept() >= 100);
    }
    // What every window asks for outlives what only one does.
    let mut symbolizer = Symbolizer::with(Limits { answers: 400, bytes: 1 << 20 }, Duration::from_secs(120));
    let first = symbolizer.symbolize(&nowhere, &[7]).remove(0);
    for round in 1..20u64 {
        let addresses: Vec<u64> = (0..100).map(|i| round << 32 | i).chain([7]).collect();
        let found = symbolizer.symbolize(&nowhere, &addresses);
        assert!(Arc::ptr_eq(&found[100].lines, &first.lines), "round {round}");
    }
}
