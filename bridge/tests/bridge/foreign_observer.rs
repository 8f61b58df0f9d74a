//! The same carriers, and the same parents, in a process where another component has OpenTelemetry's context observer slot, which is never
//! given up once it is taken.

use std::process::Command;

use crate::support::{FOREIGN_OBSERVER, alone};

#[test]
fn carriers_are_as_right_where_another_component_observes() {
    // Burning at the same time as others only takes longer.
    let _turn = alone();
    let tests = Command::new(std::env::current_exe().expect("the system knows this program's path"))
        .args([
            "carriers::",
            "parents::a_local_root_is",
            "parents::a_parent_set_late",
            "parents::nothing_in_the_callbacks",
            "--test-threads=1",
        ])
        .env(FOREIGN_OBSERVER, "1")
        .output()
        .expect("this program can be run");
    let [out, err] = [&tests.stdout, &tests.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(tests.status.success(), "{out}\n{err}");
    for test in ["carriers::each_carrier", "parents::a_local", "parents::a_parent", "parents::nothing"] {
        assert!(out.contains(&format!("test {test}")), "the tests were run: {out}");
    }
}
