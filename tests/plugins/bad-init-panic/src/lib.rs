//! Its `init` panics without the SDK's guard, which aborts the process that called it.

use busbar_bad_common::{Bad, export_bad};

static BAD: Bad = Bad {
    #[allow(clippy::panic, reason = "this is what the plugin is for")]
    init: |_| panic!("bug in init"),
    ..Bad::well_behaved("bad-init-panic")
};

export_bad!(BAD);
