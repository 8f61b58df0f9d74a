//! Children of a fork, for tests of several programs and of the library itself.
#![allow(unsafe_code)] // fork

/// Forks, and waits: zero if the child's `body` said that all was well, else the status that it ended with.
#[must_use]
pub(crate) fn forked(body: impl FnOnce() -> bool) -> libc::c_int {
    // SAFETY: the child uses only what fork leaves usable with glibc, and leaves by _exit.
    match unsafe { libc::fork() } {
        0 => {
            let fine = body();
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(i32::from(!fine)) };
        }
        child => {
            assert!(child > 0, "cannot fork: {}", std::io::Error::last_os_error());
            let mut status = 0;
            // SAFETY: fills `status`.
            let waited = unsafe { libc::waitpid(child, &mut status, 0) };
            assert_eq!(waited, child);
            status
        }
    }
}
