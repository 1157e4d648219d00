//! Keeping the memory of the process small.
//!
//! glibc gives every thread heaps of its own, and after the first large block was freed it keeps blocks of that size for
//! ever: one plugin file read whole cost twice its size from then on. And reading a large configuration leaves free pieces
//! all over the heap.
#![allow(unsafe_code, reason = "mallopt(3) and malloc_trim(3) have no safe form in std")]

/// Heaps of the process: the core works in one, the others share the rest.
#[cfg(target_env = "gnu")]
const HEAPS: i32 = 2;
/// Larger blocks are mapped, and gone when they are freed, bytes.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: i32 = 1 << 20;

/// Before the first thread begins.
pub(crate) fn begin() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes no pointer; what it refuses changes nothing.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, HEAPS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
        libc::mallopt(libc::M_TRIM_THRESHOLD, MAPPED_FROM);
    }
}

/// Gives free memory of all heaps back to the system. After a start, a reload, an upgrade: it takes some milliseconds.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointer, locks the heaps itself and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
