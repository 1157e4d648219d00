//! Says that it was built with `panic = "abort"`.
//!
//! A crate cannot choose the panic strategy of its workspace, so this one lies in its description; a test builds it
//! once more with `-C panic=abort`, where `cfg!(panic)` says the same without lying.

use busbar_bad_common::{Bad, export_bad, set};

static BAD: Bad =
    Bad { describe: |describe| set(describe, "/unwind", false.into()), ..Bad::well_behaved("bad-abort") };

export_bad!(BAD);
