//! A shared object that is no plugin.

/// Something to export.
#[allow(unsafe_code, reason = "an exported symbol")]
#[unsafe(no_mangle)]
pub extern "C" fn busbar_not_a_plugin() -> u32 {
    42
}
