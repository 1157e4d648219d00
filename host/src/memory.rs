//! Giving memory back after the start.
//!
//! Reading a large configuration leaves free pieces all over the heap, which glibc keeps for ever.
#![allow(unsafe_code, reason = "malloc_trim(3) has no safe form in std")]

/// Gives free memory of all arenas back to the system. Once, after the start: it takes some milliseconds.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointer, locks the arenas itself and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
